#!/usr/bin/env bash
# Fills the corpora of `recording` with recordings of every interpreter on the machine: small ones, as
# each byte of a large one is seldom changed.
set -euo pipefail
cd "$(dirname "$0")/.."
PYSAMP=${PYSAMP:-$PWD/target/release/pysamp}
CORPUS=$PWD/fuzz/corpus/recording
SCRATCH=$(mktemp -d)
trap 'rm -r "$SCRATCH"' EXIT
mkdir -p "$CORPUS"
cat >"$SCRATCH/program.py" <<'PROGRAM'
import asyncio, gc, os, threading, time

def work(until):
    while time.monotonic() < until:
        try:
            sum(range(2000))
            raise ValueError
        except ValueError:
            pass
        gc.collect()

async def task(until):
    while time.monotonic() < until:
        await asyncio.sleep(0.001)

end = time.monotonic() + 0.6
others = [threading.Thread(target=work, args=(end,), name="größe-%d" % n) for n in range(2)]
[one.start() for one in others]
asyncio.new_event_loop().run_until_complete(task(end))
[one.join() for one in others]
if os.fork() == 0:
    work(time.monotonic() + 0.3)
else:
    os.wait()
PROGRAM
while IFS=$'\t' read -r name python version; do
    minor=${version#3.}
    [[ $version == 3.* && ${minor%%.*} -ge 8 ]] || continue
    file=$SCRATCH/$name.pysamp
    "$PYSAMP" run --python "$python" --subprocesses -r 50hz --async-mode all --recording -o "$file" \
        "$SCRATCH/program.py" 2>/dev/null || continue
    # What is done with it: cut, viewed, written as a page; see the target.
    for how in '\1\0\0\0' '\1\112\4\10' '\2\136\1\27' '\0\244\2\41'; do
        { printf '%b' "${how//\\/\\0}"; cat "$file"; } >"$CORPUS/$name${how//\\/-}"
    done
done <"${PYSAMP_CACHE:-$HOME/.cache/pysamp}/interpreters.tsv"
ls "$CORPUS" | wc -l
