//! Which shard has an address. Fixed for ever: the answer decides which journal holds a queue,
//! so a change here is a change of format.

use forebay_journal::ShardId;

use super::split_queue;

/// The shard of a name: that of its address, for its queue, its topic and each of its queues.
///
/// What is bound to a pattern of addresses is on every shard, and this does not say so.
///
/// Every shard draws a number from the address and the highest wins, so that another shard takes
/// its even share from all and moves nothing between the others.
/// Cost: O(shards + bytes); connections keep the answer.
/// Panics: if there are no shards (our own mistake).
pub fn shard_of(address: &[u8], shard_count: u16) -> ShardId {
    assert_ne!(shard_count, 0, "a node has at least one shard");
    let address = split_queue(address).map_or(address, |(address, _)| address);
    let name = fingerprint(address);
    let winner = (0..shard_count).max_by_key(|&shard| {
        let draw = spread(name ^ spread(u64::from(shard) + 1));
        (draw, core::cmp::Reverse(shard))
    });
    ShardId(winner.unwrap_or(0))
}

/// FNV-1a, 64 bit.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Lets every bit of the input reach every bit of the output: a bijection by two multiplications
/// with odd constants (the golden ratio and the square root of three, as fractions of 2^64).
const fn spread(value: u64) -> u64 {
    let mut mixed = value;
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbb67_ae85_84ca_a73b);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> impl Iterator<Item = Vec<u8>> {
        (0..20_000).map(|number| format!("orders.{number}").into_bytes())
    }

    #[test]
    fn placement_never_changes() {
        let shards: Vec<u16> = ["a", "b", "orders", "orders.eu", "", "\u{e4}"]
            .iter()
            .flat_map(|name| [2, 3, 8].map(|count| shard_of(name.as_bytes(), count).0))
            .collect();
        assert_eq!(shards, GOLDEN);
    }

    #[test]
    fn shares_are_even() {
        for count in [2_u16, 3, 7, 16] {
            let mut shares = vec![0_u32; count.into()];
            names().for_each(|name| shares[usize::from(shard_of(&name, count).0)] += 1);
            let even = 20_000 / u32::from(count);
            for share in shares {
                assert!(
                    share.abs_diff(even) < even / 8,
                    "{share} of {even} at {count}"
                );
            }
        }
    }

    #[test]
    fn a_new_shard_moves_addresses_only_to_itself() {
        for name in names() {
            let (before, after) = (shard_of(&name, 4), shard_of(&name, 5));
            assert!(after == before || after == ShardId(4));
        }
    }

    const GOLDEN: [u16; 18] = [0, 2, 7, 1, 1, 6, 1, 1, 1, 1, 1, 4, 1, 1, 1, 1, 1, 4];
}
