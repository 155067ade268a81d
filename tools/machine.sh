# shellcheck shell=bash
# What scripts ask of the machine; sourced, not run.

say() { printf '\n== %s\n' "$*"; }

# Ends the script with a reason and a remedy.
give_up() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Finds cargo, also where rustup puts it without a new login.
need_rust() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    command -v cargo >/dev/null ||
        give_up "cargo is missing. Remedy: install Rust by https://rustup.rs and run this again"
}

# apt_install PACKAGE...: installs by apt when this user may; status 1 when not.
apt_install() {
    command -v apt-get >/dev/null || return 1
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    say "installing $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" \
        >/dev/null && return 0
    "${as_root[@]}" apt-get update >/dev/null &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" \
            >/dev/null
}

# need COMMAND:PACKAGE...: every command is there, or is installed, or the script ends saying how.
need() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    apt_install "${missing[@]}" ||
        give_up "missing: ${missing[*]}. Remedy: as root, apt-get install ${missing[*]}"
}
