# Everyday commands. CI runs tools/test.sh, which needs neither just nor cargo-deny.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Lists the recipes.
default:
    @just --list

# Builds and starts a broker on ./forebay-data.
start *flags:
    tools/start.sh {{flags}}

# Format, lints and floors: a minute, before each commit.
check: floors
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --locked --test tidy

# The cores compile without runtime, sockets and files.
floors:
    cargo check --locked -p forebay --no-default-features --lib
    cargo check --locked -p forebay-journal --no-default-features --lib

# Everything CI runs, stock clients included.
test:
    tools/test.sh

# Only the tests of one crate, such as `just unit forebay-journal`.
unit crate *filter:
    cargo test --locked -p {{crate}} {{filter}}

# Stock clients against a release build.
interop clients="stomp.py,stomp.py-ws,stompit,stompjs,stompjs-ws,stomp-gem,net-stomp":
    cargo build --release --locked --bin forebay
    python3 tests/interop/run.py --clients {{clients}}

# 10 000 kills of a release build, ledger checked; hours.
kill-long rounds="10000":
    cargo build --release --locked --bin forebay
    FOREBAY_PROGRAM="$PWD/target/release/forebay" FOREBAY_KILL_ROUNDS={{rounds}} \
        cargo test --release --locked --test kill -- --nocapture

# Simulated power cuts, a hundred times as many as in CI.
power-cut-long workloads="40000":
    FOREBAY_POWER_CUT_WORKLOADS={{workloads}} \
        cargo test --release --locked -p forebay-journal --test power_cut -- --nocapture

# Properties and models of the cores over many more histories than in CI.
sim cases="100000":
    PROPTEST_CASES={{cases}} cargo test --release --locked --workspace --lib --test '*model*'

# The simulated node over many more seeds than in CI.
sim-long seeds="20000":
    FOREBAY_SIM_SEEDS={{seeds}} cargo test --release --locked --test sim promises -- --nocapture

# Fuzzes one decoder, such as `just fuzz stomp 600`. Nightly and cargo-fuzz.
fuzz target seconds="60":
    mkdir -p fuzz/corpus/{{target}} fuzz/seeds/{{target}}
    cd fuzz && cargo +nightly fuzz run {{target}} corpus/{{target}} seeds/{{target}} -- -max_total_time={{seconds}}

# Undefined behaviour in buffers and cores. Nightly and miri.
miri *filter:
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p forebay-journal --lib {{filter}}

# The figures of benches/README.md: disk, journal, broker, raw-ring toy.
bench seconds="3":
    benches/run {{seconds}}

# Generated documents: docs/configuration.md from the table of keys.
doc:
    FOREBAY_WRITE_DOCS=1 cargo test --locked -p forebay --lib the_document_is_what_the_table_says
    git diff --stat -- docs

alias docs := doc

# Licences, advisories, sources.
deny:
    cargo deny check
