#!/usr/bin/env bash
# Builds and starts the broker on a fresh Debian machine with Rust: the README's first command.
#
#   tools/start.sh                     data in ./forebay-data, STOMP on 127.0.0.1:61613
#   tools/start.sh --data DIR ...      any flag of `forebay serve` (see `forebay serve --help`)
#
# Installs gcc, libc6-dev and git by apt when they are missing and it may (root or sudo without a
# password); else says what to install. Changes nothing else on the machine.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/machine.sh
. "$root/tools/machine.sh"

need_rust
need_build_tools
say "building forebay (release; the first time takes some minutes)" >&2
# From the folder of the checkout, so that rust-toolchain.toml is found; paths of flags stay as given.
(cd "$root" && cargo build --release --locked --quiet --target-dir "$root/target" --bin forebay)
exec "$root/target/release/forebay" serve "$@"
