#!/usr/bin/env bash
# Every check, in the order of how fast it fails. Writes nothing outside target/.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PWD/target/tools/node_modules/.bin:$PATH"

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --all --check

step "protobuf lint (buf STANDARD)"
if command -v buf >/dev/null; then
  (cd proto && buf lint)
else
  echo "buf is not installed: run make setup" >&2
  exit 1
fi

step "clippy"
cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

step "dependencies"
# Licences, bans and single versions are checked by e2e/tests/it/architecture.rs with nothing to install. cargo-deny adds the
# advisories of RustSec where it is installed and their database can be fetched.
if cargo deny --version >/dev/null 2>&1; then
  cargo deny --locked check bans licenses sources
  if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny --locked check advisories
  else
    echo "skipped: the RustSec advisory database cannot be fetched from here"
  fi
else
  echo "skipped: cargo-deny is not installed (cargo install --locked cargo-deny)"
fi

step "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features --locked --quiet

step "tests"
cargo test --workspace --all-features --locked --no-fail-fast
