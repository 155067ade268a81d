#!/usr/bin/env bash
# Installs what the tests need (pinned) and runs them all: the README's second command, and CI.
#
#   tools/test.sh            everything; under 30 minutes on 2 cores from nothing
#
# One log on standard output, a summary at the end. What could not be run (a client that cannot be
# installed here, a test that says so itself in a line `NOT RUN what: why`, an ignored test) stands
# in the last lines; with CI set that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/machine.sh
. tools/machine.sh

summary=()
not_run=()
failed=0
started=$SECONDS

# step NAME COMMAND...: runs one step, keeps its duration and outcome; later steps run regardless.
step() {
    local name=$1 start=$SECONDS outcome=ok
    shift
    say "$name"
    "$@" 2>&1 | tee "$log" || outcome=FAILED
    [ "$outcome" = ok ] || failed=1
    mapfile -t -O ${#not_run[@]} not_run < <(
        sed -n 's/^NOT RUN //p; s/^test \(.*\) \.\.\. ignored.*/\1: ignored/p' "$log"
    )
    summary+=("$(printf '%-7s %-44s %5d s  %s' "$outcome" "$name" $((SECONDS - start)) "$(counts)")")
}

# Sums what the step's log says about tests: `test result: ok. N passed; M failed` of cargo, and
# the lines of the interop runner.
counts() {
    awk '
        /^test result:/ { passed += $4; failed += $6; seen = 1 }
        /^interop .*checks/ { passed += $3 - $5; failed += $5; cannot += $7; seen = 1 }
        /^kill-[0-9]+: [0-9]+ kills under load/ { kills += $2; recovering += $6 }
        /^(plain|real) writer: [0-9]+ images opened/ { images += $3 }
        END {
            if (seen) printf "%d passed, %d failed", passed, failed
            if (cannot) printf ", %d a client cannot express", cannot
            if (kills) printf ", %d times kill -9 under load, %d in recovery", kills, recovering
            if (images) printf ", %d power-cut images", images
        }' "$log"
}

# Names what is not run and why.
skip() {
    not_run+=("$1: $2")
    say "NOT RUN $1: $2"
}

# stomp.py in .venv, by hash.
install_python_client() {
    local what="interop stomp.py, stomp.py-ws, one shard and two"
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3-venv ||
        { skip "$what" "no Python 3 with venv; remedy: apt-get install python3-venv"; return; }
    if ! { [ -x .venv/bin/python ] || python3 -m venv .venv; } ||
        ! .venv/bin/python -m pip install --quiet --disable-pip-version-check \
            --require-hashes -r tests/interop/requirements.txt; then
        skip "$what" "cannot be installed from PyPI"
        return
    fi
    clients+=(stomp.py stomp.py-ws)
}

# stompit, @stomp/stompjs and ws in tests/interop/node_modules, by the lock file.
install_node_clients() {
    local why="no node and npm; remedy: apt-get install nodejs npm"
    { command -v node && command -v npm; } >/dev/null || apt_install nodejs npm ||
        { skip "interop stompit, stompjs, stompjs-ws" "$why"; return; }
    npm ci --prefix tests/interop --no-audit --no-fund --loglevel=error ||
        { skip "interop stompit, stompjs, stompjs-ws" "cannot be installed from npm"; return; }
    clients+=(stompit stompjs stompjs-ws)
}

# Unpacks packages of this Debian below tests/interop/debian, by content; the system stays as it is.
unpack_pinned() {
    local folder=tests/interop/debian package file
    mkdir -p "$folder/files"
    for package in "$@"; do
        file=$(pinned_file "$package") ||
            { (cd "$folder/files" && apt_download "$package") && file=$(pinned_file "$package"); } ||
            return 1
        dpkg-deb -x "$file" "$folder"
    done
}

# Names the file of a package that is here and is one of those in debian.sha256.
pinned_file() {
    local files=tests/interop/debian/files file
    for file in "$files/$1"_*.deb; do
        [ -e "$file" ] && grep -qxF "$(cd "$files" && sha256sum "${file##*/}")" \
            tests/interop/debian.sha256 && printf '%s\n' "$file" && return 0
    done
    return 1
}

# Ruby's stomp gem; Ruby itself is the system's.
install_ruby_client() {
    local what="interop stomp gem, one shard and two"
    command -v ruby >/dev/null || apt_install ruby ||
        { skip "$what" "no Ruby; remedy: apt-get install ruby"; return; }
    unpack_pinned ruby-stomp ||
        { skip "$what" "apt has none of the packages in tests/interop/debian.sha256"; return; }
    clients+=(stomp-gem)
}

# Perl's Net::Stomp and what it needs; Perl itself is the system's, whole: minimal ones have a part.
install_perl_client() {
    local what="interop Net::Stomp, one shard and two"
    perl -MStorable -MTime::HiRes -e 1 2>/dev/null || apt_install perl ||
        { skip "$what" "no Perl; remedy: apt-get install perl"; return; }
    unpack_pinned libnet-stomp-perl libclass-accessor-perl liblog-any-perl ||
        { skip "$what" "apt has none of the packages in tests/interop/debian.sha256"; return; }
    clients+=(net-stomp)
}

need_rust
need_build_tools
need python3:python3
# The full disk is a loop-mounted ext4, which only root can make; for others the tests say NOT RUN.
[ "$(id -u)" -ne 0 ] || need mkfs.ext4:e2fsprogs mount:mount losetup:mount
mkdir -p target
log=$(mktemp target/test-step.XXXXXX)
trap 'rm -f "$log"' EXIT
clients=()

say "installing pinned clients"
install_python_client
install_node_clients
install_ruby_client
install_perl_client

step "format" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
step "floors: forebay without its runtime" \
    cargo check --locked --quiet -p forebay --no-default-features --lib
step "floors: forebay-journal alone" \
    cargo check --locked --quiet -p forebay-journal --no-default-features --lib
step "release build" cargo build --release --locked --quiet --workspace --bins
# The kills are of the program that is shipped, so it is built first.
step "tests" env FOREBAY_PROGRAM="$PWD/target/release/forebay" \
    cargo test --workspace --locked --no-fail-fast -- --show-output
# What the build left to be written would delay the broker's own syncs by many seconds.
sync
step "stock clients: raw ${clients[*]}" \
    python3 tests/interop/run.py --clients "$(IFS=,; printf '%s' "${clients[*]}")"

step "stock clients: two shards" \
    python3 tests/interop/run.py --shards 2 --clients "$(IFS=,; printf '%s' "${clients[*]}")"

say "summary ($((SECONDS - started)) s)"
printf '%s\n' "${summary[@]}"
[ ${#not_run[@]} -eq 0 ] || printf 'NOT RUN %s\n' "${not_run[@]}"
if [ $failed -ne 0 ]; then
    printf 'FAILED\n'
elif [ ${#not_run[@]} -eq 0 ]; then
    printf 'all passed\n'
elif [ -n "${CI:-}" ]; then
    printf 'FAILED: in CI everything has to run\n'
    failed=1
else
    printf 'passed, except for %d not run\n' ${#not_run[@]}
fi
exit $failed
