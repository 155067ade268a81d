#!/usr/bin/env bash
# Builds and starts the broker on a fresh Debian machine with Rust: the README's first command.
#
#   tools/start.sh                     data in ./forebay-data, STOMP on 127.0.0.1:61613
#   tools/start.sh --data DIR ...      any flag of `forebay serve` (see `forebay serve --help`)
#
# Installs a C compiler and make by apt when they are missing and it may (root or sudo without a
# password); else says what to install. Changes nothing else on the machine.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/machine.sh
. tools/machine.sh

need_rust
need cc:gcc make:make
say "building forebay (release)"
cargo build --release --locked --quiet --bin forebay

for argument in "$@"; do
    case "$argument" in
        --data | --data=* | --config | --config=* | -h | --help) exec target/release/forebay serve "$@" ;;
    esac
done
exec target/release/forebay serve --data ./forebay-data "$@"
