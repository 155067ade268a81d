#!/usr/bin/env bash
# What only a nightly compiler can look at, where there is one: that every fuzz target builds, and
# that buffers and what decodes the journal are sound under Miri. Not a part of tools/test.sh: it
# installs nothing.
#
#   tools/nightly.sh
#
# What this machine cannot run is named in a line `NOT RUN what: why`; with CI set it is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0

# skip WHAT WHY: names what is not run.
skip() {
    echo "NOT RUN $1: $2"
    [ -z "${CI:-}" ] || failed=1
}

has_nightly() {
    command -v rustup >/dev/null && rustup toolchain list | grep -q '^nightly'
}

# Every file in fuzz/fuzz_targets is a target of fuzz/Cargo.toml, and builds.
fuzz_targets() {
    local file name
    for file in fuzz/fuzz_targets/*.rs; do
        name=$(basename "$file" .rs)
        grep -qx "name = \"$name\"" fuzz/Cargo.toml ||
            { echo "fuzz/Cargo.toml has no target $name"; return 1; }
    done
    cargo +nightly check --locked --quiet --manifest-path fuzz/Cargo.toml --bins
}

# The one file of the journal with unsafe code; its property is too long for Miri. And what reads
# bytes of a disk: each record kind there and back, arbitrary bytes, versions, names, streams; the
# window, and the writer where its blocks are few.
cores() {
    MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 \
        cargo +nightly miri test --locked --quiet -p forebay-journal --lib -- \
        few_handles format:: reader:: recovery:: window:: \
        writer::tests::after writer::tests::idle
}

if ! has_nightly; then
    skip "fuzz targets" "no nightly compiler; remedy: rustup toolchain install nightly"
    skip "Miri of cores" "no nightly compiler"
    exit $failed
fi
fuzz_targets && echo "ok fuzz targets" || { echo "FAILED fuzz targets"; failed=1; }
if rustup component list --toolchain nightly | grep -q '^miri.*(installed)'; then
    cores && echo "ok Miri of cores" || { echo "FAILED Miri of cores"; failed=1; }
else
    skip "Miri of cores" "no Miri; remedy: rustup +nightly component add miri"
fi
exit $failed
