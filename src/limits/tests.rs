//! The bounds against their documented sum and against wrong inputs.

use super::*;
use proptest::prelude::*;

fn usual() -> Inputs {
    Inputs {
        shards: 1,
        segment_size_bytes: 256 * MIB,
        segments_ready: 2,
        message_size_max_bytes: 64 * MIB,
        connections_max: 1024,
        block_cache_size_bytes: 64 * MIB,
        volatile_size_max_bytes: 256 * MIB,
    }
}

#[test]
fn usual_inputs_give_the_documented_memory() {
    let limits = Limits::derive(usual()).unwrap();
    assert_eq!(limits.blocks_cached_max, 256);
    assert_eq!(limits.blocks_max, 256 + 11);
    // 2.75 + 64 + 64 + 16 + 256 + 64 + 128 + 256 + 0 + 64 MiB
    assert_eq!(limits.memory_max_bytes(), 914 * MIB + 768 * KIB);
}

#[test]
fn each_wrong_input_is_named() {
    type Spoil = fn(&mut Inputs);
    let wrong: [(&str, Spoil); 8] = [
        ("shards", |i| i.shards = 0),
        ("shards", |i| i.shards = 257),
        ("connections_max", |i| i.connections_max = 0),
        ("segments_ready", |i| i.segments_ready = 0),
        ("segment_size", |i| i.segment_size_bytes = MIB - 4096),
        ("segment_size", |i| i.segment_size_bytes = MIB + 1),
        ("message_size_max", |i| i.message_size_max_bytes = 1 << 31),
        ("block_cache_size", |i| {
            i.block_cache_size_bytes = 3 * MIB - 4096
        }),
    ];
    for (name, spoil) in wrong {
        let mut inputs = usual();
        spoil(&mut inputs);
        let input = match Limits::derive(inputs) {
            Err(LimitsError::OutOfRange { input, .. })
            | Err(LimitsError::NotMultiple { input, .. })
            | Err(LimitsError::TooSmallFor { input, .. }) => input,
            Ok(_) => "accepted",
        };
        assert_eq!(input, name, "{inputs:?}");
    }
}

#[test]
fn a_refusal_names_a_value_that_works() {
    let inputs = Inputs {
        block_cache_size_bytes: MIB,
        ..usual()
    };
    let Err(LimitsError::TooSmallFor { least, .. }) = Limits::derive(inputs) else {
        panic!("1 MiB for the blocks on their way to the disk was accepted");
    };
    assert!(
        Limits::derive(Inputs {
            block_cache_size_bytes: least,
            ..inputs
        })
        .is_ok()
    );
    assert!(
        Limits::derive(Inputs {
            block_cache_size_bytes: least - 1,
            ..inputs
        })
        .is_err()
    );
}

proptest! {
    #[test]
    fn budgets_are_kept_and_relations_hold(
        shards in 1u32..=SHARDS_MAX,
        connections_max in 1u32..=CONNECTIONS_MAX,
        message_mib in 1u64..64,
        cache_mib in 1u64..4096,
        volatile_mib in 1u64..65_536,
    ) {
        let inputs = Inputs {
            shards,
            connections_max,
            message_size_max_bytes: message_mib * MIB,
            block_cache_size_bytes: cache_mib * MIB,
            volatile_size_max_bytes: volatile_mib * MIB,
            ..usual()
        };
        if let Ok(limits) = Limits::derive(inputs) {
            let cached = u64::from(limits.blocks_cached_max) * BLOCK_SIZE_MAX_BYTES;
            prop_assert!(cached <= inputs.block_cache_size_bytes);
            let accepted = u64::from(limits.connections_max) * u64::from(shards);
            prop_assert!(accepted >= u64::from(connections_max));
            prop_assert!(limits.blocks_max > limits.blocks_cached_max);
            let sum: u64 = limits.memory_terms().iter().map(|term| term.bytes).sum();
            prop_assert_eq!(sum, limits.memory_max_bytes());
        }
    }
}
