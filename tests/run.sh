#!/usr/bin/env bash
# Everything that has to pass: provides the interpreters and the readers of formats, then checks format
# and lints, builds, and runs all tests against the release build, which is what users run.
set -euo pipefail
cd "$(dirname "$0")/.."

# Without CI, what is there will do.
tests/provision.sh || [ -z "${CI:-}" ]
tests/consumers.sh || [ -z "${CI:-}" ]
cargo fmt --check
cargo clippy --all-targets -- -D warnings
cargo build --release
TARGET=$(realpath "${CARGO_TARGET_DIR:-target}")
export PYSAMP_LIBRARY=$TARGET/release/libpysamp.so
# The command looks for it beside itself.
mkdir -p "$TARGET/checked"
ln -sf "$PYSAMP_LIBRARY" "$TARGET/checked/libpysamp.so"
cargo test --profile checked --no-fail-fast
