#!/usr/bin/env bash
# Provides every interpreter the tests run on, outside the clone:
#
#   3.8 .. 3.13   pyenv's, only looked for: they come with the machines
#   3.11-debian   /usr/bin/python3.11, static, and 3.11-dbg, its debug build
#   3.13t         free-threaded, built from Debian trixie's source package
#   3.14, 3.15    Debian sid's binaries, with the glibc they need beside them
#
# and, for some of them, libraries that switch stacks, run event loops or start
# threads in C: what pysamp has to live with.
#
# Run it as often as you like: what is there is kept, what is missing or half
# done is made. To make one again, remove its directory. The result is printed
# and kept in $CACHE/interpreters.tsv: name, path, version.
set -euo pipefail
# shellcheck source=tests/debian.sh
source "$(dirname "$0")/debian.sh"

CACHE=${PYSAMP_CACHE:-$HOME/.cache/pysamp}
PYENV=${PYENV_ROOT:-$HOME/.pyenv}
ROOT=$CACHE/interpreters
LOGS=$CACHE/logs
TRIPLET=x86_64-linux-gnu
LOADER=ld-linux-x86-64.so.2

say() { printf 'provision: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[[ $(uname -sm) == 'Linux x86_64' ]] || die 'only x86-64 Linux is provided for.'
command -v apt-get >/dev/null || die 'this needs apt-get, so a Debian of some kind.'

# ---------------------------------------------------------------- housekeeping

mkdir -p "$ROOT" "$LOGS"
CACHE=$(cd "$CACHE" && pwd -P)
ROOT=$CACHE/interpreters LOGS=$CACHE/logs

# One run at a time. Children inherit the lock on purpose: a build that outlives
# a killed script keeps the next run waiting instead of racing with it.
exec 9>"$CACHE/provision.lock"
if ! flock -n 9; then
    say 'another run is at work, waiting for it.'
    flock 9
fi

# Nothing is ever made in its final place, so what an interrupted run left
# behind is only this.
rm -rf "$CACHE"/tmp.*
WORK=
JOBS=()
cleanup() {
    local job
    for job in "${JOBS[@]}"; do kill -- "-$job" 2>/dev/null || true; done
    [[ -z $WORK ]] || rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

workdir() {
    [[ -n $WORK ]] || WORK=$(mktemp -d "$CACHE/tmp.XXXXXX")
}

# job LOG COMMAND...: starts a step in the background, to be waited for by $!.
# There, set -e holds inside functions, which it does not under `||` or `if`;
# and a process group of its own lets cleanup take down all that a step started.
job() {
    local log=$LOGS/$1.log
    shift
    set -m
    ("$@") >"$log" 2>&1 </dev/null &
    set +m
    JOBS+=($!)
}

complete() { [[ -e $ROOT/$1/.complete ]]; }

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# ------------------------------------------------------------- Debian packages

# What runs as it is, what the steps below call, and what the free-threaded
# build links against.
SYSTEM_PACKAGES=(
    python3.11 python3.11-dev libpython3.11-dev python3.11-dbg
    linux-perf patchelf xz-utils make gcc libc6-dev pkg-config
    zlib1g-dev libbz2-dev liblzma-dev libssl-dev libffi-dev libsqlite3-dev
    libreadline-dev libncurses-dev uuid-dev
)

system_packages() {
    local package status missing=()
    for package in "${SYSTEM_PACKAGES[@]}"; do
        status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
        [[ $status == ?i* ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    say "installing ${missing[*]}"
    local install=(env DEBIAN_FRONTEND=noninteractive
        apt-get install -y -q --no-install-recommends "${missing[@]}")
    {
        # The machine's package lists may be old or empty: only then refresh.
        as_root "${install[@]}" ||
            { as_root apt-get update -q && as_root "${install[@]}"; }
    } >"$LOGS/system.log" 2>&1 ||
        die "apt-get cannot install ${missing[*]}; see $LOGS/system.log."
}

# ------------------------------------------------------------------ 3.14, 3.15

# sid_tree: downloads and unpacks sid's packages of both versions into one tree.
sid_tree() {
    local apt=$WORK/sid version packages=(libstdc++6) deb
    for version in 3.14 3.15; do
        packages+=("python$version" "python$version-dev" "python$version-venv"
            "libpython$version-dev" "libpython$version-testsuite")
    done
    private_apt "$apt" "deb [signed-by=$KEYRING target=Packages] $MIRROR sid main"
    APT_CONFIG=$apt/apt.conf apt-get install -y -q --download-only "${packages[@]}"
    mkdir "$apt/tree"
    for deb in "$apt"/cache/archives/*.deb; do
        dpkg -x "$deb" "$apt/tree"
    done
}

# sid_python VERSION: cuts one interpreter out of the tree.
sid_python() {
    local version=$1 usr=$WORK/sid/tree/usr
    local final=$ROOT/$version prefix=$WORK/stage-$version
    local lib=$prefix/lib/python$version
    mkdir -p "$prefix"/{bin,glibc,include,lib/$TRIPLET,share}

    cp -a "$usr/bin/python$version" "$prefix/bin/"
    ln -s "python$version" "$prefix/bin/python3"
    cp -a "$usr/lib/python$version" "$prefix/lib/"
    cp -a "$usr/lib/$TRIPLET/libpython$version".* "$prefix/lib/$TRIPLET/"
    cp -a "$usr/share/python-wheels" "$prefix/share/"

    # Debian keeps pyconfig.h apart and expects /usr/include in the search path.
    cp -a "$usr/include/python$version" "$prefix/include/"
    cp -a "$usr/include/$TRIPLET/python$version/pyconfig.h" "$prefix/include/python$version/"

    # Every shared library the interpreter and its modules can ask for, so that
    # none of the machine's older ones has to be new enough. gconv, the other
    # libpython and the linker's names (*.so) stay out.
    find "$usr/lib/$TRIPLET" -maxdepth 1 '(' -name '*.so.*' -o -name 'libdb-*.so' ')' \
        ! -name 'libpython*' \
        -exec cp -a -t "$prefix/glibc" {} +
    cp -aL "$usr/lib/$TRIPLET/$LOADER" "$prefix/glibc/"
    # RPATH, unlike RUNPATH, also holds for what the libraries themselves need.
    patchelf --set-interpreter "$final/glibc/$LOADER" \
        --force-rpath --set-rpath "$final/glibc" "$prefix/bin/python$version"

    # Debian's guards against pip, and its hook into /etc, are for a system
    # python; this one is ours. Its own paths follow it to where it lives.
    rm -f "$lib/EXTERNALLY-MANAGED" "$lib/sitecustomize.py"
    sed -i "s,/usr/share/python-wheels,$final/share/python-wheels,g
            s,/usr/lib/python$version,$final/lib/python$version,g
            s,/usr/include/python$version,$final/include/python$version,g" \
        "$lib"/_sysconfig*

    publish "$version" "$prefix"

    local python=$final/bin/python$version pip
    pip=$(echo "$final"/share/python-wheels/pip-*.whl)
    "$python" "$pip/pip" install -q --no-index --no-warn-script-location \
        --root-user-action ignore "$pip"
    # Compiled now, lest the first test to come by pays for it.
    "$python" -m compileall -q -x '/(test|lib2to3)/' "$lib" || true
    accept "$version" "$python" "$final/include/python$version"
}

# ----------------------------------------------------------------------- 3.13t

# Upstream's tarball as it is in Debian's source package, without Debian's
# patches: those move site-packages and disable ensurepip.
freethreaded() {
    local apt=$WORK/trixie final=$ROOT/3.13t stage=$WORK/stage-3.13t tarball
    private_apt "$apt" "deb-src [signed-by=$KEYRING target=Sources] $MIRROR trixie main"
    mkdir "$apt/source" "$apt/build"
    cd "$apt/source"
    APT_CONFIG=$apt/apt.conf apt-get source -q --download-only python3.13
    tarball=$(echo "$apt"/source/python3.13_*.orig.tar.*z)
    tar -xf "$tarball" -C "$apt/build" --strip-components=1
    cd "$apt/build"
    # pip comes last: at this point ensurepip would take an older, unfinished
    # installation in the final place for its own and leave pip out.
    ./configure -q --prefix="$final" --disable-gil --without-ensurepip
    make -s -j2
    make -s install DESTDIR="$stage"

    publish 3.13t "$stage$final"
    "$final/bin/python3.13t" -m ensurepip
    accept 3.13t "$final/bin/python3.13t" "$final/include/python3.13t"
}

# ---------------------------------------------------------------------- common

# publish NAME DIR: puts a finished directory into its place. One that is there
# only gives way at the last moment: somebody may be running it.
publish() {
    [[ ! -e $ROOT/$1 ]] || mv -T "$ROOT/$1" "$WORK/old-$1"
    mv -T "$2" "$ROOT/$1"
}

# accept NAME PYTHON INCLUDE: the last step, and the only one that marks an
# interpreter as usable. Everything tests rely on is tried first.
accept() {
    "$2" -c 'import sys, ssl, ctypes, asyncio, sqlite3, subprocess, multiprocessing
import bz2, lzma, zlib, readline, uuid, curses
subprocess.run([sys.executable, "-c", "pass"], check=True)
if sys.executable.endswith("t"): assert not sys._is_gil_enabled()'
    "$2" -m pip --version
    test -e "$3/Python.h" -a -e "$3/internal/pycore_runtime.h"
    touch "$ROOT/$1/.complete"
}

# ------------------------------------------------------------------------ work

system_packages

need_sid=()
for name in 3.14 3.15; do complete "$name" || need_sid+=("$name"); done

if ((${#need_sid[@]})) || ! complete 3.13t; then
    [[ -r $KEYRING ]] || die "$KEYRING is missing: install debian-archive-keyring."
    MIRROR=$(mirror)
    [[ -n $MIRROR ]] || die 'no Debian mirror is named in /etc/apt/sources.list or sources.list.d.'
    workdir
fi

BUILD=
if ! complete 3.13t; then
    say 'building 3.13t in the background (one to four minutes)'
    job 3.13t freethreaded
    BUILD=$!
fi

if ((${#need_sid[@]})); then
    say "fetching ${need_sid[*]}"
    job sid sid_tree
    wait $! || die "Debian sid's packages cannot be had from $MIRROR; see $LOGS/sid.log."
    for name in "${need_sid[@]}"; do
        job "$name" sid_python "$name"
        wait $! || die "Python $name cannot be set up; see $LOGS/$name.log."
        say "$name is ready"
    done
fi

if [[ -n $BUILD ]]; then
    wait "$BUILD" || die "Python 3.13t cannot be built; see $LOGS/3.13t.log."
    say '3.13t is ready'
fi

# ---------------------------------------------------------------------- report

missing=()
report() {
    local name=$1 path=$2 version
    if [[ -x $path ]] && version=$("$path" -c 'import sys; print(sys.version.split()[0])'); then
        printf '%s\t%s\t%s\n' "$name" "$path" "$version"
    else
        missing+=("$name")
    fi
}

# pyenv SERIES...: of each series the newest patch release.
pyenv() {
    local series newest
    for series; do
        newest=$(find "$PYENV/versions" -maxdepth 1 -regex ".*/${series/./\\.}\.[0-9]+" \
            2>/dev/null | sort -V | tail -n 1) || true
        report "$series" "${newest:-$PYENV/versions/$series}/bin/python"
    done
}

list=$CACHE/interpreters.tsv
{
    pyenv 2.7 3.7 # not supported: to be turned down politely
    optional=${missing[*]} missing=()
    pyenv 3.8 3.9 3.10 3.11 3.12 3.13
    report 3.11-debian /usr/bin/python3.11
    report 3.11-dbg /usr/bin/python3.11-dbg
    report 3.13t "$ROOT/3.13t/bin/python3.13t"
    report 3.14 "$ROOT/3.14/bin/python3.14"
    report 3.15 "$ROOT/3.15/bin/python3.15"
} >"$list.new"
mv "$list.new" "$list"
cat "$list"

# libraries NAME PYTHON LIBRARY...: wheels for one interpreter, in a directory of their own.
libraries() {
    local name=$1 python=$2 final=$CACHE/libraries/$1 stage=$WORK/libraries-$1
    shift 2
    "$python" -m pip install -q --disable-pip-version-check --root-user-action ignore \
        --only-binary :all: --target "$stage" "$@"
    PYTHONPATH=$stage "$python" -c "import $(IFS=,; echo "$*")"
    mkdir -p "$CACHE/libraries"
    mv -T "$stage" "$final"
}

installs=()
for name in 3.8 3.9 3.10 3.11 3.12 3.13 3.14 3.15; do
    # There is no wheel of either for the free-threaded build.
    wanted=(greenlet gevent)
    case $name in 3.8 | 3.12 | 3.15) wanted+=(uvloop numpy) ;; esac
    python=$(awk -F '\t' -v name="$name" '$1 == name { print $2 }' "$list")
    [[ -n $python && ! -d $CACHE/libraries/$name ]] || continue
    workdir
    say "installing libraries for $name"
    job "libraries-$name" libraries "$name" "$python" "${wanted[@]}"
    installs+=($!)
done
for install in "${installs[@]}"; do
    wait "$install" || die "libraries cannot be installed; see $LOGS/libraries-*.log."
done
[[ -z $optional ]] || say "not there, and not required: $optional"
((${#missing[@]} == 0)) ||
    die "the matrix lacks ${missing[*]}; 3.8 to 3.13 are looked for in $PYENV/versions."
