//! The bytes of the lease: what is written is read, what is damaged is not taken for anything, and
//! a seal table that was never finished is not taken for a damaged one, nor the other way round.

use forebay_journal::format::{
    CLAIM_FILE_SIZE, Checksum, Claim, ClaimFile, FENCE_SIZE, Fence, FormatError, Incarnation,
    LEASE_FILE_SIZE, LeaseHead, Next, NodeName, Role, SEAL_TABLE_SIZE, SHARDS_MAX, SLOTS_MAX,
    SealTable, SealTableRead, ShardSeal, Slot, SlotId, SlotRead, SlotState, checksum,
};
use forebay_journal::recovery::file_name::{claim_file_name, parse_claim_file_name};
use forebay_journal::{BlockNumber, Epoch, JournalId, Lsn};

const JOURNAL: JournalId = JournalId([7; 16]);
const GOLDEN: &str = include_str!("fixtures/v2/lease.hex");

fn head() -> LeaseHead {
    LeaseHead {
        journal: JOURNAL,
        slot_count: 16,
        shard_count: 3,
        heartbeat_ms: 250,
        io_ms: 500,
        lease_ms: 1_500,
        takeover_ms: 2_000,
        created_unix_ms: 1_700_000_000_000,
    }
}

fn name() -> NodeName {
    NodeName::new("node-a.example").expect("a name")
}

fn slot() -> Slot {
    Slot {
        journal: JOURNAL,
        slot: SlotId(2),
        name: name(),
        incarnation: Incarnation([9; 16]),
        role: Role::Backup,
        state: SlotState::Released,
        next: Next::Node(SlotId(1)),
        epoch: Epoch::ZERO.plus(5),
        heartbeat: 77,
        joined: 3,
        ready_for: Epoch::ZERO.plus(4),
        acked: vec![Lsn::ZERO.plus(10), Lsn::ZERO, Lsn::ZERO.plus(30)],
    }
}

fn claim() -> Claim {
    Claim {
        journal: JOURNAL,
        epoch: Epoch::ZERO.plus(6),
        name: name(),
        incarnation: Incarnation([9; 16]),
    }
}

fn table(shards: usize) -> SealTable {
    let seal = |shard: usize| ShardSeal {
        epoch: Epoch::ZERO.plus(shard as u64 % 6),
        lsn: Lsn::ZERO.plus(100 + shard as u64),
        block: BlockNumber::ZERO.plus(20 + shard as u64),
        identity: checksum(&[shard as u8]),
    };
    SealTable {
        journal: JOURNAL,
        epoch: claim().epoch,
        incarnation: claim().incarnation,
        seals: (0..shards)
            .map(|shard| (shard != 1).then(|| seal(shard)))
            .collect(),
    }
}

/// A claim file with both copies of a table.
fn sealed(shards: usize) -> Vec<u8> {
    let mut bytes = ClaimFile::encode_new(claim());
    let copy = table(shards).encode();
    assert_eq!(copy.len(), SEAL_TABLE_SIZE);
    for at in [0, 1].map(|copy| ClaimFile::seals_offset(copy) as usize) {
        bytes[at..at + SEAL_TABLE_SIZE].copy_from_slice(&copy);
    }
    bytes
}

fn read(bytes: &[u8]) -> ClaimFile {
    ClaimFile::decode(bytes, JOURNAL, claim().epoch).expect("long enough")
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(LeaseHead::decode(&head().encode()), Ok(head()));
    assert_eq!(Slot::decode(&slot().encode()), Ok(slot()));
    let read_as = SlotRead::new(&slot().encode(), JOURNAL, SlotId(2));
    assert_eq!(read_as.sound(), Some(&slot()));
    for fence in [
        Fence::open(claim()),
        Fence::shut(claim(), Epoch::ZERO.plus(9)),
    ] {
        assert_eq!(Fence::decode(&fence.encode()), Ok(fence));
    }
    let by = Claim {
        epoch: Epoch::ZERO.plus(9),
        ..claim()
    };
    let unread = Fence::shut_unread(JOURNAL, claim().epoch, &by);
    assert_eq!(Fence::decode(&unread.encode()), Ok(unread));
    assert!(!unread.is_open());
    for shards in [1, 3, 99, 100, 101, 200, SHARDS_MAX] {
        let file = read(&sealed(shards));
        assert_eq!(file.seals, SealTableRead::Sound(table(shards)), "{shards}");
        assert_eq!(file.fence, Ok(Fence::open(claim())));
    }
    assert_eq!(
        parse_claim_file_name(&claim_file_name(claim().epoch)),
        Some(claim().epoch)
    );
    assert_eq!(parse_claim_file_name("claim-6"), None);
}

#[test]
fn every_place_lies_in_the_file_and_in_no_other() {
    let mut ends = vec![0];
    for copy in 0..2 {
        ends.push(LeaseHead::OFFSETS[copy] + 4096);
        for slot in 0..SLOTS_MAX {
            let offset = LeaseHead::slot_offset(SlotId(slot), copy);
            assert!(
                offset >= *ends.last().expect("some"),
                "slot {slot} of copy {copy}"
            );
            ends.push(offset + 4096);
        }
    }
    assert!(*ends.last().expect("some") <= LEASE_FILE_SIZE);
    assert_eq!(ClaimFile::seals_offset(0), FENCE_SIZE as u64);
    assert_eq!(
        ClaimFile::seals_offset(1) as usize + SEAL_TABLE_SIZE,
        CLAIM_FILE_SIZE
    );
}

#[test]
fn a_changed_byte_is_never_read() {
    let (head, slot, fence) = (
        head().encode(),
        slot().encode(),
        Fence::open(claim()).encode(),
    );
    for at in (0..4096).filter(|at| at % 16 < 3 || *at < 256) {
        let flip = |sector: &[u8; 4096]| {
            let mut sector = *sector;
            sector[at] ^= 0x10;
            sector
        };
        assert!(LeaseHead::decode(&flip(&head)).is_err(), "head, byte {at}");
        assert!(Fence::decode(&flip(&fence)).is_err(), "fence, byte {at}");
        let read = SlotRead::new(&flip(&slot), JOURNAL, SlotId(2));
        assert_eq!(read, SlotRead::Unreadable, "slot, byte {at}");
    }
    assert_eq!(
        SlotRead::new(&[0; 4096], JOURNAL, SlotId(2)),
        SlotRead::Empty
    );
    assert_eq!(
        SlotRead::new(&slot, JOURNAL, SlotId(1)),
        SlotRead::Unreadable,
        "misplaced"
    );
    assert_eq!(
        SlotRead::new(&slot, JournalId([1; 16]), SlotId(2)),
        SlotRead::Unreadable
    );
    assert!(matches!(
        Fence::decode(&fence[..4000]),
        Err(FormatError::Truncated { .. })
    ));
}

#[test]
fn a_table_that_was_not_finished_is_no_damage() {
    let whole = sealed(101);
    let [first, second] = [0, 1].map(|copy| ClaimFile::seals_offset(copy) as usize);
    let cases = [
        // How much of the first and of the second copy is there, and what that says.
        (0, 0, SealTableRead::Absent),
        (4096, 0, SealTableRead::Absent),
        (2 * 4096, 0, SealTableRead::Absent),
        (3 * 4096, 0, SealTableRead::Sound(table(101))),
        (3 * 4096, 4096, SealTableRead::Sound(table(101))),
        // The second is begun only behind the first.
        (4096, 4096, SealTableRead::Damaged),
        (0, 4096, SealTableRead::Damaged),
        (0, 3 * 4096, SealTableRead::Sound(table(101))),
    ];
    for (of_first, of_second, expected) in cases {
        let mut bytes = ClaimFile::encode_new(claim());
        bytes[first..first + of_first].copy_from_slice(&whole[first..first + of_first]);
        bytes[second..second + of_second].copy_from_slice(&whole[second..second + of_second]);
        assert_eq!(read(&bytes).seals, expected, "{of_first} {of_second}");
    }
}

#[test]
fn one_damaged_copy_of_the_seals_is_enough_and_two_are_not() {
    for (first, second) in [(true, false), (false, true), (true, true)] {
        let mut bytes = sealed(3);
        for (copy, is_damaged) in [first, second].into_iter().enumerate() {
            bytes[ClaimFile::seals_offset(copy) as usize + 100] ^= u8::from(is_damaged);
        }
        let expected = if first && second {
            SealTableRead::Damaged
        } else {
            SealTableRead::Sound(table(3))
        };
        assert_eq!(read(&bytes).seals, expected);
    }
    let mut bytes = sealed(3);
    bytes[200] ^= 1;
    let file = read(&bytes);
    assert!(file.fence.is_err(), "in doubt a fence is not open");
    assert_eq!(
        file.seals,
        SealTableRead::Sound(table(3)),
        "and its seals still count"
    );
    let other = ClaimFile::decode(&sealed(3), JOURNAL, Epoch::ZERO.plus(7)).expect("long enough");
    assert_eq!(other.fence, Err(FormatError::Foreign { name: "epoch" }));
    assert_eq!(
        other.seals,
        SealTableRead::Damaged,
        "seals of another epoch say nothing"
    );
}

#[test]
fn names_are_plain() {
    for name in ["a", "node-1", "A_b.c", &"x".repeat(64)] {
        assert_eq!(NodeName::new(name).expect("a name").as_str(), name);
    }
    for name in ["", "a b", "a/b", "\u{e4}", "a\0", &"x".repeat(65)] {
        assert_eq!(NodeName::new(name), None, "{name:?}");
    }
    assert_eq!(Checksum::NONE, Checksum::default());
}

/// Head, slot and claim of this release, one behind the other: lines of `offset hex`.
#[test]
#[allow(clippy::disallowed_methods, reason = "fixtures are files")]
fn golden_bytes_are_written() {
    let mut bytes = head().encode().to_vec();
    bytes.extend(slot().encode());
    bytes.extend(sealed(3));
    let line = |(index, chunk): (usize, &[u8])| {
        let hex: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let is_zero = chunk.iter().all(|&byte| byte == 0);
        (!is_zero).then(|| format!("{:06x} {hex}\n", index * 32))
    };
    let written: String = bytes.chunks(32).enumerate().filter_map(line).collect();
    if std::env::var_os("WRITE_FIXTURES").is_some() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v2");
        std::fs::write(format!("{folder}/lease.hex"), written).expect("written");
        return;
    }
    assert_eq!(
        written, GOLDEN,
        "the bytes changed: that is a new version of the format"
    );
}
