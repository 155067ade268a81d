# shellcheck shell=bash
# A broker for a benchmark script, and where to run what; sourced from the repository's root, not run.
#
# PROGRAMS names a folder with built programs; else they are built here.
# Sets: programs (their folder), port, irq and other (the core of the disk's interrupts and another
# one), work (a folder on this disk, removed at the end), broker (process id; empty for none).

if [ -n "${PROGRAMS:-}" ]; then
    programs=$(realpath "$PROGRAMS")
else
    cargo build --release --locked --quiet --workspace --bins
    programs=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
port=${PORT:-61999}
irq=$(awk '/req\.|nvme/ { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) n[i - 2] += $i }
           END { print (n[1] >= n[0]) ? 1 : 0 }' /proc/interrupts)
# shellcheck disable=SC2034 # used by those who source this
other=$((1 - irq))
work=$(mktemp -d "$PWD/bench-run.XXXXXX")
broker=
finish() {
    [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
    wait || true
    rm -rf "$work"
}
trap finish EXIT

# start_broker ARGUMENT...: on a new data folder; returns when clients can connect. What it says is
# in $work/said. Of another build if $forebay names it.
start_broker() {
    rm -rf "$work/data"
    # Else the last one's `ready` could be taken for that of this one.
    : > "$work/said"
    "${forebay:-$programs/forebay}" serve --data "$work/data" --stomp "127.0.0.1:$port" "$@" > "$work/said" 2>&1 &
    broker=$!
    for _ in $(seq 600); do
        grep -q '^ready' "$work/said" && return
        kill -0 "$broker"
        sleep 0.1
    done
}

stop_broker() {
    kill "$broker"
    wait "$broker"
    broker=
}
