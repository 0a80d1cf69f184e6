#!/usr/bin/env bash
# Provides what looks at pages, outside the clone: Debian's Chromium and Node.js, and the library with which the
# one drives the other, in $CACHE/browser. What is there is kept.
set -euo pipefail

VERSION=1.65.1
CACHE=${PYSAMP_CACHE:-$HOME/.cache/pysamp}
FOLDER=$CACHE/browser

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if ((${#missing[@]})); then
    echo "browser: installing ${missing[*]}" >&2
    install=(env DEBIAN_FRONTEND=noninteractive
        apt-get install -y -q --no-install-recommends "${missing[@]}")
    # The machine's package lists may be old or empty: only then refresh.
    as_root "${install[@]}" >&2 ||
        { as_root apt-get update -q && as_root "${install[@]}"; } >&2
fi

mkdir -p "$FOLDER"
exec 9>"$FOLDER/lock"
flock 9
if [[ ! -e $FOLDER/$VERSION.complete ]]; then
    echo "browser: installing playwright-core $VERSION" >&2
    (cd "$FOLDER" && npm install --no-audit --no-fund --ignore-scripts --no-save \
        "playwright-core@$VERSION") >&2
    touch "$FOLDER/$VERSION.complete"
fi
