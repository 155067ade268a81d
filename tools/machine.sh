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

# Whether this user may install packages; then `apt_get` is the command that does.
may_apt() {
    command -v apt-get >/dev/null || return 1
    apt_get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq)
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
    apt_get=(sudo -n "${apt_get[@]}")
}

# apt_install PACKAGE...: installs by apt when this user may; status 1 when not.
apt_install() {
    may_apt || return 1
    say "installing $*" >&2
    # The first try fails where there are no lists of packages yet, or old ones: not worth a word.
    "${apt_get[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1 && return 0
    "${apt_get[@]}" update >/dev/null &&
        "${apt_get[@]}" install -y --no-install-recommends "$@" >/dev/null
}

# apt_download PACKAGE...: brings their files into this folder, as any user; installs nothing.
apt_download() {
    command -v apt-get >/dev/null || return 1
    # As with apt_install; what it warns of as root is a download without a sandbox.
    apt-get -qq download "$@" >/dev/null 2>&1 && return 0
    may_apt && "${apt_get[@]}" update >/dev/null && apt-get -qq download "$@" >/dev/null
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

# Whether a C program comes out of the compiler: it is there on many machines without the headers
# and start files of the C library, and then nothing links.
can_link() {
    local folder status=0
    folder=$(mktemp -d)
    printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$folder/try.c"
    gcc -o "$folder/try" "$folder/try.c" 2>/dev/null && cc --version >/dev/null 2>&1 || status=1
    rm -r "$folder"
    return $status
}

# What a build needs beside Rust: C that links (Rust's linker; glommio's liburing, whose configure
# asks for gcc by name), and git, which glommio's build script calls and insists on.
need_build_tools() {
    need git:git
    can_link && return
    { apt_install gcc libc6-dev && can_link; } ||
        give_up "no C compiler that links. Remedy: as root, apt-get install gcc libc6-dev"
}
