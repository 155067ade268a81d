#!/usr/bin/env bash
# Installs what the tests need (pinned) and runs them all: the README's second command, and CI.
#
#   tools/test.sh            everything; under 30 minutes on 2 cores from nothing
#
# One log on standard output, a summary at the end. What could not be run (a client that cannot be
# installed here) stands in the last lines; with CI set that is a failure.
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
    summary+=("$(printf '%-7s %-44s %5d s  %s' "$outcome" "$name" $((SECONDS - start)) "$(counts)")")
}

# Sums what the step's log says about tests: `test result: ok. N passed; M failed` of cargo, and
# the lines of the interop runner.
counts() {
    awk '
        /^test result:/ { passed += $4; failed += $6; ignored += $8; seen = 1 }
        /^interop .*checks/ { passed += $3 - $5; failed += $5; seen = 1 }
        /^kill-[0-9]+: [0-9]+ lives/ { lives += $2 }
        /^(plain|real) writer: [0-9]+ images opened/ { images += $3 }
        END {
            if (seen) printf "%d passed, %d failed", passed, failed
            if (ignored) printf ", %d ignored", ignored
            if (lives) printf ", %d broker lives", lives
            if (images) printf ", %d power-cut images", images
        }' "$log"
}

# Names what is not run and why.
skip() {
    not_run+=("$1: $2")
    say "NOT RUN: $1: $2"
}

# stomp.py in .venv, by hash.
install_python_client() {
    local why="no Python 3 with venv; remedy: apt-get install python3-venv"
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3-venv ||
        { skip "interop stomp.py" "$why"; return; }
    if ! { [ -x .venv/bin/python ] || python3 -m venv .venv; } ||
        ! .venv/bin/python -m pip install --quiet --disable-pip-version-check \
            --require-hashes -r tests/interop/requirements.txt; then
        skip "interop stomp.py" "cannot be installed from PyPI"
        return
    fi
    clients+=(stomp.py)
}

# stompit and @stomp/stompjs in tests/interop/node_modules, by the lock file.
install_node_clients() {
    local why="no node and npm; remedy: apt-get install nodejs npm"
    { command -v node && command -v npm; } >/dev/null || apt_install nodejs npm ||
        { skip "interop stompit, stompjs" "$why"; return; }
    npm ci --prefix tests/interop --no-audit --no-fund --loglevel=error ||
        { skip "interop stompit, stompjs" "cannot be installed from npm"; return; }
    clients+=(stompit stompjs)
}

need_rust
need cc:gcc make:make python3:python3
mkdir -p target
log=$(mktemp target/test-step.XXXXXX)
trap 'rm -f "$log"' EXIT
clients=()

say "installing pinned clients"
install_python_client
install_node_clients

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
step "stock clients: raw ${clients[*]}" \
    python3 tests/interop/run.py --clients "$(IFS=,; printf '%s' "${clients[*]}")"

case " ${clients[*]} " in
    *" stomp.py "*) step "stock clients: two shards" \
        python3 tests/interop/run.py --shards 2 --clients stomp.py ;;
esac

say "summary ($((SECONDS - started)) s)"
printf '%s\n' "${summary[@]}"
if [ ${#not_run[@]} -gt 0 ]; then
    printf 'NOT RUN %s\n' "${not_run[@]}"
    [ -z "${CI:-}" ] || failed=1
fi
[ $failed -eq 0 ] && printf 'all passed\n' || printf 'FAILED\n'
exit $failed
