//! Fixed parts of the records, as they lie on disk behind the record head.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Checksum, RecordHead};
use crate::format::layout::{StructLayout, layout};

macro_rules! raw {
    ($const:ident, $title:literal, $name:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $type),+ }
        pub(in crate::format) const $const: StructLayout = layout!($title, $name { $($field),+ });
    };
}

pub(in crate::format) const RECORD_HEAD: StructLayout =
    layout!("Record head", RecordHead { kind, flags, size });

raw!(
    EPOCH_START,
    "Record 1: epoch start",
    EpochStart {
        epoch: U64,
        sealed_epoch: U64,
        sealed_lsn: U64,
        sealed_block: U64,
        sealed_checksum: Checksum,
        oldest_segment: U64,
        message_floor: U64,
        queue_floor: U64,
    }
);
raw!(
    RETAINED,
    "Record 2: retained",
    Retained {
        oldest_segment: U64,
        message_floor: U64,
        queue_floor: U64,
    }
);
raw!(
    CLEAN_SHUTDOWN,
    "Record 3: clean shutdown",
    CleanShutdown { unix_ms: U64 }
);
raw!(
    QUEUE_DEFINE,
    "Record 4: queue define",
    QueueDefine {
        queue: U64,
        routing: u8,
        reserved: u8,
        queue_flags: U16,
        address_size: U16,
        name_size: U16,
        filter_size: U16,
        reserved_2: U16,
    }
);
raw!(
    QUEUE_DELETE,
    "Record 5: queue delete",
    QueueDelete { queue: U64 }
);
raw!(
    MESSAGE,
    "Record 6: message",
    Message {
        message: U64,
        transaction: U64,
        upload: U64,
        body_size: U64,
        timestamp_unix_ms: U64,
        expires_unix_ms: U64,
        head_size: U32,
        queue_count: U32,
        priority: u8,
        encoding: u8,
        message_flags: U16,
        reserved: U32,
    }
);
raw!(
    ANNOTATIONS,
    "Annotations of a message",
    Annotations {
        deliver_unix_ms: U64,
        group: U64,
        annotation_flags: U16,
        last_value_size: U16,
        duplicate_id_size: U16,
        address_size: U16,
    }
);
raw!(
    FRAGMENT,
    "Record 7: fragment",
    Fragment {
        upload: U64,
        offset: U64
    }
);
raw!(
    UPLOAD_ABANDONED,
    "Record 8: upload abandoned",
    UploadAbandoned { upload: U64 }
);
raw!(
    DELIVERY,
    "Record 9: delivery",
    Delivery {
        queue: U64,
        first: U64,
        last: U64,
        priority: u8,
        reserved: [u8; 7]
    }
);
raw!(
    SETTLE,
    "Record 10: settle",
    Settle {
        queue: U64,
        transaction: U64,
        outcome: u8,
        reserved: [u8; 3],
        message_count: U32,
    }
);
raw!(
    RELEASE,
    "Record 11: release",
    Release {
        queue: U64,
        transaction: U64,
        ready_unix_ms: U64,
        message_count: U32,
        reserved: U32
    }
);
raw!(
    TRANSACTION,
    "Record 12: transaction",
    Transaction {
        transaction: U64,
        state: u8,
        reserved: [u8; 7],
    }
);

raw!(
    HANDOUT,
    "Record 13: handout",
    Handout {
        queue: U64,
        message_count: U32,
        reserved: U32
    }
);
raw!(
    DEPART,
    "Record 14: depart",
    Depart {
        queue: U64,
        transaction: U64,
        message_count: U32,
        reason: u8,
        reserved: [u8; 3],
    }
);
raw!(
    DUPLICATE_ID,
    "Record 15: duplicate id",
    DuplicateId {
        message: U64,
        address_size: U16,
        id_size: U16,
        routing: u8,
        reserved: [u8; 3],
    }
);

raw!(
    SHARE,
    "Record 16: share",
    Share {
        queue: U64,
        message_count: U32,
        reserved: U32,
    }
);
raw!(
    MOVED,
    "Record 17: moved",
    Moved {
        message: U64,
        upload: U64,
        body_size: U64,
        timestamp_unix_ms: U64,
        expires_unix_ms: U64,
        head_size: U32,
        queue_count: U32,
        priority: u8,
        encoding: u8,
        message_flags: U16,
        reserved: U32,
    }
);

/// Bit of `message_flags`: the sender named the body's length.
pub(super) const MESSAGE_HAS_CONTENT_LENGTH: u16 = 1;
/// Bit of `message_flags`: journaled before it is acknowledged.
pub(super) const MESSAGE_IS_DURABLE: u16 = 2;
/// Bit of `message_flags`: annotations follow the fixed part.
pub(super) const MESSAGE_HAS_ANNOTATIONS: u16 = 4;
/// Bit of `message_flags`: its expiry is another one than its head says.
pub(super) const MESSAGE_HAS_OWN_EXPIRY: u16 = 8;
/// Bit of `annotation_flags`: the group ends with the message.
pub(super) const ANNOTATION_IS_GROUP_END: u16 = 1;
/// Bits of `queue_flags`.
pub(super) const QUEUE_IS_AUTO_CREATED: u16 = 1;
pub(super) const QUEUE_IS_SUBSCRIPTION: u16 = 2;
pub(super) const QUEUE_IS_SHARED: u16 = 4;
pub(super) const QUEUE_IS_NO_LOCAL: u16 = 8;
pub(super) const QUEUE_IS_PAUSED: u16 = 16;
pub(super) const QUEUE_IS_DIVERT: u16 = 32;
pub(super) const QUEUE_IS_RETROACTIVE: u16 = 64;
