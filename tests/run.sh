#!/usr/bin/env bash
# Everything that has to pass: provides the interpreters, then checks format and lints, builds, and
# runs all tests against the release build, which is what users run.
set -euo pipefail
cd "$(dirname "$0")/.."

# Without CI, the interpreters that are there will do, and pages are looked at where there is a browser.
tests/provision.sh || [ -z "${CI:-}" ]
tests/browser.sh || [ -z "${CI:-}" ]
cargo fmt --check
cargo clippy --all-targets -- -D warnings
cargo build --release
cargo test --release --no-fail-fast
