#!/usr/bin/env bash
# Builds a CPython with its patch and pysamp, and runs the tests of both:
#
#   cpython-patch/test.sh [--all] [--configure=OPTION]... [SOURCE]
#
# SOURCE is a directory with CPython's source, which is copied; without it, 3.13.5 is taken from
# Debian trixie's source package. --configure=--disable-gil builds without the GIL. --all runs the
# whole of CPython's test suite, with and without PYTHONSAMPLE, in place of the parts that the patch
# touches. The Python that was built is kept in $CACHE/cpython, and made again where the patch, the
# source or the options have changed.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd -P)
ROOT=$(dirname "$HERE")
CACHE=${PYSAMP_CACHE:-$HOME/.cache/pysamp}
# What the patch touches, and what a thread in the process could disturb.
PARTS=(test_sys test_embed test_cmd_line test_capi test_config test_inspect test_subprocess
    test_threading test_signal test_fork1 test_atexit test_interpreters)

say() { printf 'cpython-patch: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

ALL= SOURCE= OPTIONS=()
for argument; do
    case $argument in
        --all) ALL=--all ;;
        --configure=*) OPTIONS+=("${argument#--configure=}") ;;
        -*) die "there is no option $argument; --all and --configure=OPTION are." ;;
        *) SOURCE=$(cd "$argument" && pwd -P) ;;
    esac
done

mkdir -p "$CACHE/cpython"
exec 9>"$CACHE/cpython/lock"
flock -n 9 || { say 'another run is at work, waiting for it.'; flock 9; }

# Upstream's tarball as it is in Debian's source package, without Debian's patches.
debian_source() {
    # shellcheck source=tests/debian.sh
    source "$ROOT/tests/debian.sh"
    local tree=$CACHE/cpython/debian work mirror
    if [[ ! -e $tree ]]; then
        [[ -r $KEYRING ]] || die "$KEYRING is missing: install debian-archive-keyring."
        mirror=$(mirror)
        [[ -n $mirror ]] || die 'no Debian mirror is named in apt'\''s sources: name a SOURCE.'
        work=$(mktemp -d "$CACHE/cpython/tmp.XXXXXX")
        # shellcheck disable=SC2064
        trap "rm -rf '$work'" EXIT
        mkdir "$work/source" "$work/tree"
        private_apt "$work" "deb-src [signed-by=$KEYRING target=Sources] $mirror trixie main" >&2
        (cd "$work/source" &&
            APT_CONFIG=$work/apt.conf apt-get source -q --download-only python3.13 >&2)
        tar -xf "$work"/source/python3.13_*.orig.tar.*z -C "$work/tree" --strip-components=1
        mv -T "$work/tree" "$tree"
    fi
    echo "$tree"
}

[[ -n $SOURCE ]] || SOURCE=$(debian_source)
HEADER=$SOURCE/Include/patchlevel.h
[[ -r $HEADER ]] || die "$SOURCE is no source of CPython: it has no Include/patchlevel.h."
VERSION=$(sed -n 's/^#define PY_VERSION  *"\(.*\)".*/\1/p' "$HEADER")
SERIES=$(grep -o '^[0-9]*\.[0-9]*' <<<"$VERSION")
PATCH=$HERE/$SERIES.patch
[[ -e $PATCH ]] || die "there is no patch for $VERSION; there are those for $(cd "$HERE" && echo *.patch)."

say "building pysamp"
cargo build --release --manifest-path "$ROOT/Cargo.toml"
TARGET=$(cargo metadata --format-version 1 --no-deps --manifest-path "$ROOT/Cargo.toml" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

WANTED=$(cat "$PATCH" "$HEADER" <(printf '%s\n' "$SOURCE" "${OPTIONS[@]}") | sha256sum | cut -c1-16)
BUILD=$CACHE/cpython/$VERSION-$WANTED
if [[ ! -e $BUILD/.configured ]]; then
    say "patching and configuring $VERSION"
    rm -rf "$BUILD"
    mkdir -p "$BUILD"/{source,pysamp/include,pysamp/lib}
    cp -a "$SOURCE/." "$BUILD/source"
    patch -s -p1 -F0 -d "$BUILD/source" <"$PATCH"
    cp "$ROOT/include/pysamp.h" "$BUILD/pysamp/include"
    cp "$TARGET/release/libpysamp.a" "$BUILD/pysamp/lib"
    (cd "$BUILD/source" && ./configure -q --with-pysamp="$BUILD/pysamp" "${OPTIONS[@]}")
    touch "$BUILD/.configured"
fi
cd "$BUILD/source"
if ! cmp -s "$TARGET/release/libpysamp.a" "$BUILD/pysamp/lib/libpysamp.a" ||
    ! cmp -s "$ROOT/include/pysamp.h" "$BUILD/pysamp/include/pysamp.h"; then
    cp "$ROOT/include/pysamp.h" "$BUILD/pysamp/include"
    cp "$TARGET/release/libpysamp.a" "$BUILD/pysamp/lib"
    # What make does not know of: linked and compiled again.
    rm -f python Python/sampler.o libpython*.so*
fi
say "building $VERSION ${OPTIONS[*]}"
env -u PYTHONSAMPLE make -s -j"$(nproc)"

say "testing $VERSION ${OPTIONS[*]}"
./python -m test -v test_sampler
"$ROOT/tests/regression.py" --linked --python "$PWD/python" ${ALL:-"${PARTS[@]}"}
