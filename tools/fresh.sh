#!/usr/bin/env bash
# Tries the README's two commands on a minimal Debian made for it, where everything is missing that
# they forget to install. By hand, before a release; as root, needs debootstrap.
#
#   tools/fresh.sh FOLDER            makes a system like this one in FOLDER, clones this checkout into
#                                    it, runs tools/start.sh until `ready`, then .ci/run
#   tools/fresh.sh FOLDER COMMAND    runs another command in the clone
#
# Rust is that of this machine, read-only; its certificates are copied. FOLDER stays; remove it
# afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(realpath -m "${1:?usage: tools/fresh.sh FOLDER [COMMAND]}")
command=${2:-'tools/start.sh >ready.txt &
    until grep -s ^ready ready.txt; do kill -0 $! || exit; sleep 1; done
    kill $!; wait $!; .ci/run'}
[ ! -e "$fresh" ] || { echo "error: $fresh is there; only a new system is a fresh one" >&2; exit 1; }

# shellcheck source=/dev/null
debootstrap --variant=minbase "$(. /etc/os-release; echo "$VERSION_CODENAME")" "$fresh" >/dev/null
git clone -q . "$fresh/root/forebay"
mkdir -p "$fresh/root/.cargo" "$fresh/root/.rustup" "$fresh/etc/ssl/certs"
cp -a "${CARGO_HOME:-$HOME/.cargo}/bin" "$fresh/root/.cargo/"
cp /etc/ssl/certs/ca-certificates.crt "$fresh/etc/ssl/certs/"
cp -a /usr/local/share/ca-certificates "$fresh/usr/local/share/"
export fresh command rustup="${RUSTUP_HOME:-$HOME/.rustup}"
# The mounts live in a namespace of their own, so FOLDER is plain files when this ends.
# shellcheck disable=SC2016
unshare --mount bash -euo pipefail -c '
    for folder in /proc /sys /dev; do mount --rbind $folder "$fresh$folder"; done
    mount --bind "$rustup" "$fresh/root/.rustup"
    mount -o remount,bind,ro "$fresh/root/.rustup"
    exec chroot "$fresh" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        bash -euc "cd ~/forebay; $command"
'
