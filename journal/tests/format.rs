//! The document, the code and the bytes of the last release say the same.

mod rig;

use std::collections::BTreeMap;

use forebay_journal::format::layout::LAYOUT;
use forebay_journal::format::{
    Annotations, Block, CheckpointEntry, CheckpointFields, CheckpointFragment, Departure,
    FORMAT_VERSION, IdList, MessageFields, MessageFlags, Outcome, Parts, QueueFlags, Record,
    Routing, SegmentHead, Standing, StandingBytes, Standings, Stands, Superblock, TransactionState,
    checksum,
};
use forebay_journal::reader::{Found, Mode, SegmentReader};
use forebay_journal::{Epoch, Location, MessageId, QueueId, SegmentId};
use rig::{Rig, open, path};
use zerocopy::little_endian::U64;

const DOCUMENT: &str = include_str!("../../docs/format.md");
/// A journal written by this version: lines of `offset hex`, all else zero.
const GOLDEN: &str = include_str!("fixtures/v2/segment.hex");
const GOLDEN_SUPERBLOCK: &str = include_str!("fixtures/v2/superblock.hex");

/// Title to rows of offset, size and field.
fn documented() -> BTreeMap<String, Vec<(usize, usize, String)>> {
    let mut tables: BTreeMap<String, Vec<(usize, usize, String)>> = BTreeMap::new();
    let mut title = String::new();
    for line in DOCUMENT.lines() {
        if let Some(heading) = line.strip_prefix('#') {
            title = heading.trim_start_matches('#').trim().to_string();
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [offset, size, field, _] = cells[..]
            && let (Ok(offset), Ok(size)) = (offset.parse(), size.parse())
        {
            tables
                .entry(title.clone())
                .or_default()
                .push((offset, size, field.to_string()));
        }
    }
    tables
}

#[test]
fn byte_tables_are_those_of_the_compiler() {
    let mut tables = documented();
    for layout in LAYOUT {
        let rows = tables.remove(layout.name);
        let rows = rows.unwrap_or_else(|| panic!("no table {:?} in the document", layout.name));
        let fields: Vec<_> = layout
            .fields
            .iter()
            .map(|&(name, offset, size)| (offset, size, name.to_string()))
            .collect();
        assert_eq!(rows, fields, "{}", layout.name);
        let end = rows.iter().fold(0, |end, &(offset, size, _)| {
            assert_eq!(offset, end, "gap in {}", layout.name);
            offset + size
        });
        assert_eq!(end, layout.size, "{}", layout.name);
    }
    assert!(tables.is_empty(), "tables of nothing: {:?}", tables.keys());
}

#[test]
fn the_version_has_a_history_line() {
    let (_, history) = DOCUMENT
        .split_once("## 10. Version history")
        .expect("section 10");
    assert!(
        history.contains(&format!("\n| {FORMAT_VERSION} | ")),
        "add a line for the version"
    );
}

/// One record of each kind, in the order of the kinds.
fn append_one_of_each(rig: &mut Rig) {
    let queue = QueueId(2);
    let ids = [U64::new(7), U64::new(9)];
    let queues = [U64::new(2)];
    let fields = MessageFields {
        message: MessageId(7),
        transaction: 1,
        upload: 6,
        body_size: 11,
        timestamp_unix_ms: 1_700_000_000_000,
        expires_unix_ms: 1_700_000_060_000,
        priority: 4,
        encoding: 1,
        flags: MessageFlags {
            has_content_length: true,
            is_durable: true,
            has_own_expiry: true,
        },
    };
    let annotations = golden_annotations();
    let records = [
        Record::QueueDefine {
            queue,
            routing: Routing::Anycast,
            flags: QueueFlags {
                is_auto_created: true,
                is_no_local: true,
                is_paused: true,
                ..QueueFlags::default()
            },
            address: b"orders",
            name: b"orders",
            filter: b"size > 3",
        },
        Record::Fragment {
            upload: 6,
            offset: 0,
            body: Parts::One(b"hello "),
        },
        Record::Message {
            fields,
            annotations,
            queues: IdList(&queues),
            head: Parts::One(b"destination:orders\n"),
            body: Parts::One(b"world"),
        },
        Record::UploadAbandoned { upload: 8 },
        Record::Delivery {
            queue,
            priority: 4,
            first: MessageId(7),
            last: MessageId(7),
        },
        Record::Settle {
            queue,
            transaction: 1,
            outcome: Outcome::Accepted,
            messages: IdList(&ids),
        },
        Record::Transaction {
            transaction: 1,
            state: TransactionState::Committed,
        },
    ];
    for record in &records {
        assert!(rig.append(record), "{record:?}");
    }
    append_lists(rig, queue, &ids);
    assert!(rig.append(&Record::QueueDelete { queue }));
}

fn golden_annotations() -> Annotations<'static> {
    Annotations {
        deliver_unix_ms: 1_700_000_001_000,
        group: 5,
        is_group_end: true,
        last_value: b"key",
        duplicate_id: b"id",
        address: b"a.b",
    }
}

/// Records that name messages of a queue.
fn append_lists(rig: &mut Rig, queue: QueueId, ids: &[U64]) {
    let records = [
        Record::Release {
            queue,
            transaction: 9,
            ready_unix_ms: 1_700_000_002_000,
            messages: IdList(ids),
        },
        Record::Handout {
            queue,
            messages: IdList(ids),
        },
        Record::Depart {
            queue,
            transaction: 9,
            reason: Departure::AttemptsExceeded,
            messages: IdList(ids),
        },
        Record::DuplicateId {
            message: MessageId(7),
            routing: Routing::Anycast,
            address: b"orders",
            id: b"id",
        },
        Record::Share {
            queue,
            pairs: IdList(&ids[..2]),
        },
    ];
    for record in &records {
        assert!(rig.append(record), "{record:?}");
    }
    append_places(rig, queue, ids);
}

/// Of what says where messages lie.
fn append_places(rig: &mut Rig, queue: QueueId, ids: &[U64]) {
    let standings = [StandingBytes::from(Standing {
        stands: Stands::Leaving(Departure::Expired),
        attempts: 3,
        is_replaced: true,
    })];
    let location = Location::new(SegmentId::ZERO.next(), 8192, 192);
    let entry = CheckpointEntry::new(MessageId(7), location, 24, 3, 4);
    let records = [
        Record::Moved {
            fields: MessageFields {
                message: MessageId(7),
                body_size: 5,
                timestamp_unix_ms: 1_700_000_000_000,
                priority: 4,
                encoding: 1,
                ..MessageFields::default()
            },
            annotations: Annotations {
                deliver_unix_ms: 0,
                duplicate_id: b"",
                ..golden_annotations()
            },
            queues: IdList(&ids[..1]),
            standings: Standings::new(&standings),
            head: Parts::One(b"head"),
            body: Parts::One(b"world"),
        },
        Record::Checkpoint {
            queue,
            latest_unix_ms: 1_700_000_000_001,
            entries: &[entry],
        },
        Record::CheckpointMessage {
            queue,
            entry,
            fields: CheckpointFields {
                state: Stands::Delayed {
                    ready_unix_ms: 1_700_000_000_009,
                },
                expires_unix_ms: 1_700_000_000_010,
                group: 3,
                is_group_end: true,
                is_shared: true,
                is_replaced: true,
                upload: 6,
                own_size_bytes: 5,
                fragments_before: 0,
                fragments_total: 1,
            },
            fragments: &[CheckpointFragment::new(entry.location(), 7)],
            last_value: b"key",
        },
    ];
    for record in &records {
        assert!(rig.append(record), "{record:?}");
    }
}

/// The journal that the fixture holds, as this release writes it.
fn golden_rig() -> Rig {
    let mut rig = Rig::new(1, 5);
    rig.prepare_all(&mut |_| {});
    append_one_of_each(&mut rig);
    rig.drain();
    rig.seal_idle();
    rig.drain();
    rig.stop();
    rig
}

fn golden_superblock() -> Superblock {
    Superblock {
        journal: rig::JOURNAL,
        shard_count: 4,
        created_unix_ms: 1_700_000_000_000,
    }
}

/// Bytes to lines of `offset hex` of 32 bytes; lines of zeros are left out.
fn to_hex(bytes: &[u8]) -> String {
    let line = |(index, chunk): (usize, &[u8])| {
        let hex: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let is_zero = chunk.iter().all(|&byte| byte == 0);
        (!is_zero).then(|| format!("{:06x} {hex}\n", index * 32))
    };
    bytes.chunks(32).enumerate().filter_map(line).collect()
}

fn from_hex(text: &str, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for line in text.lines() {
        let (offset, hex) = line.split_once(' ').expect("offset and bytes");
        let offset = usize::from_str_radix(offset, 16).expect("offset");
        for at in 0..hex.len() / 2 {
            let byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16);
            bytes[offset + at] = byte.expect("two hex digits");
        }
    }
    bytes
}

#[test]
#[allow(clippy::disallowed_methods, reason = "fixtures are files")]
fn golden_bytes_are_written_and_read() {
    let rig = golden_rig();
    let name = path(Epoch::ZERO.next(), SegmentId::ZERO.next());
    let file = rig.disk.find(&name).expect("the first segment");
    let written = rig.disk.live(file).expect("exists").to_vec();
    if std::env::var_os("WRITE_FIXTURES").is_some() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v2");
        let superblock = to_hex(&golden_superblock().encode());
        std::fs::write(format!("{folder}/segment.hex"), to_hex(&written)).expect("written");
        std::fs::write(format!("{folder}/superblock.hex"), superblock).expect("written");
        return;
    }
    assert_eq!(
        to_hex(&written),
        GOLDEN,
        "the bytes changed: that is a new version of the format"
    );

    let mut disk = rig.disk.clone();
    disk.put(file, 0, &from_hex(GOLDEN, written.len()))
        .expect("fits");
    let opened = open(&disk);
    rig.model.check(&opened).expect("the fixture opens");
    let kinds: Vec<u8> = opened
        .records
        .iter()
        .map(|(_, _, bytes)| bytes[0])
        .collect();
    assert_eq!(
        kinds,
        [
            1, 4, 7, 6, 8, 9, 10, 12, 11, 13, 14, 15, 16, 17, 18, 19, 5, 3
        ]
    );
    assert!(opened.result.expect("checked").is_clean_shutdown);

    let bytes = from_hex(GOLDEN_SUPERBLOCK, 2 * 4096);
    assert_eq!(Superblock::decode(&bytes), Ok(golden_superblock()));
    assert_eq!(golden_superblock().encode()[..], bytes);
}

/// Drives a segment reader over an image; returns kind, offset and size of each stretch.
fn walk(image: &[u8], mode: Mode) -> Vec<(&'static str, u64, u64)> {
    let head = SegmentHead::decode(image).expect("sound head");
    let mut reader = SegmentReader::new(0, head, image.len() as u64, mode);
    let mut found = Vec::new();
    loop {
        while let Some(stretch) = reader.next_found() {
            found.push(match stretch {
                Found::Block { offset, bytes, .. } => ("block", offset, bytes.len() as u64),
                Found::Stale { offset, size, .. } => ("stale", offset, size),
                Found::Unused { offset, size } => ("unused", offset, size),
                Found::Damage { offset, size, .. } => ("damage", offset, size),
            });
        }
        let Some(request) = reader.poll_read() else {
            return found;
        };
        let from = request.offset as usize;
        reader.handle_read(Ok(&image[from..from + request.len as usize]));
    }
}

#[test]
fn the_lenient_reader_drops_nothing() {
    let mut rig = Rig::new(2, 40);
    rig.write_blocks(4, 9_000);
    let file = rig
        .disk
        .find(&path(Epoch::ZERO.next(), SegmentId::ZERO.next()))
        .expect("made");
    let mut image = rig.disk.live(file).expect("exists").to_vec();
    let blocks = walk(&image, Mode::Strict);
    let sizes: Vec<_> = blocks.iter().map(|&(kind, _, size)| (kind, size)).collect();
    assert_eq!(sizes[..4], [("block", 12_288); 4]);
    assert_eq!(
        sizes[4..],
        [("unused", 4096)],
        "strict stops at the first that is no block"
    );

    // The second block rots in its payload, the third is a copy of the first.
    image[4096 + 12_288 + 5000] ^= 4;
    image.copy_within(4096..4096 + 12_288, 4096 + 2 * 12_288);
    let found = walk(&image, Mode::Lenient);
    let kinds: Vec<_> = found.iter().map(|&(kind, ..)| kind).collect();
    assert_eq!(kinds, ["block", "damage", "stale", "block", "unused"]);
    let end = found.iter().fold(4096, |end, &(_, offset, size)| {
        assert_eq!(offset, end, "gap or overlap in {found:?}");
        offset + size
    });
    assert_eq!(end, image.len() as u64);
    assert_eq!(walk(&image, Mode::Strict).len(), 2);
}

#[test]
fn checksums_are_the_documented_ones() {
    let rig = golden_rig();
    let file = rig
        .disk
        .find(&path(Epoch::ZERO.next(), SegmentId::ZERO.next()))
        .expect("made");
    let block = &rig.disk.live(file).expect("exists")[4096..];
    let header = Block::decode(block).expect("sound").header;
    let end = header.block_size as usize;
    assert_eq!(header.identity, checksum(&block[..176]));
    let payload = checksum(&block[192..end]).to_string();
    let stored: String = block[160..176]
        .iter()
        .rev()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(payload, stored);
}
