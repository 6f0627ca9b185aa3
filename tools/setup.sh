#!/usr/bin/env bash
# Installs what `make verify` needs and is not there yet: on Debian by itself, saying what; elsewhere it says what is missing.
# Everything that is not a Debian package goes to target/tools, so that nothing outside the clone changes.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="$PWD/target/tools"
mkdir -p "$tools"

say() { printf 'setup: %s\n' "$*"; }
missing=()

need() { # need COMMAND PACKAGE
  PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null && return 0
  missing+=("$2")
}
need cc gcc
need git git
need npm npm
need curl curl
# A caller in another language.
need python3 python3
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
# What the tests of faults hurt the registry with, and the store of its replicas. Without them these tests say so and are skipped.
need strace strace
need iptables iptables
need ip iproute2
need etcd etcd-server
need etcdctl etcd-client
# The other store of the services; the tests start a server of their own. Debian keeps its programs out of PATH.
[ -n "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || need initdb postgresql
# Backups of the file kind of store.
need sqlite3 sqlite3
# The broker of events; the tests start servers of their own.
need nats-server nats-server
# Another make of TLS, for what ours never offers.
need openssl openssl

if [ ${#missing[@]} -gt 0 ]; then
  root=""
  [ "$(id -u)" = 0 ] || root="sudo -n"
  if command -v apt-get >/dev/null && { [ -z "$root" ] || sudo -n true 2>/dev/null; }; then
    say "installing Debian packages: ${missing[*]}"
    $root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    say "please install: ${missing[*]}" >&2
    exit 1
  fi
fi

command -v cargo >/dev/null || { say "please install Rust (rustup.rs), 1.88 or newer" >&2; exit 1; }

# The protobuf linter, from its npm package.
buf_version=1.75.0
if [ "$("$tools/node_modules/.bin/buf" --version 2>/dev/null)" != "$buf_version" ]; then
  say "installing buf $buf_version (npm package @bufbuild/buf) into target/tools"
  npm install --silent --no-audit --no-fund --prefix "$tools" "@bufbuild/buf@$buf_version"
fi

# grpcurl is how people will try the servers, so the tests do too. It is a Go module; without Go those tests say so and skip.
if ! command -v grpcurl >/dev/null && [ ! -x "$tools/bin/grpcurl" ]; then
  if command -v go >/dev/null; then
    say "installing grpcurl (Go module) into target/tools"
    GOBIN="$tools/bin" GOFLAGS=-modcacherw go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
  else
    say "no Go here: tests that use grpcurl will be skipped"
  fi
fi
# A caller in Python, from PyPI's packages.
wanted="e2e/tests/python/requirements.txt"
if ! cmp -s "$wanted" "$tools/python/requirements.txt"; then
  say "installing gRPC and OpenTelemetry for Python (PyPI) into target/tools/python"
  python3 -m venv --clear "$tools/python"
  "$tools/python/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$tools/python/requirements.txt"
fi
say "ready"
