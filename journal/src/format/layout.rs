//! The byte tables of `docs/format.md` as the compiler sees them; `tests/format.rs` compares.

/// One structure: name as in the document, size in bytes, fields in order.
pub struct StructLayout {
    /// Title of the table in the document.
    pub name: &'static str,
    /// Size of the fixed part in bytes.
    pub size: usize,
    /// Name, offset in bytes, size in bytes.
    pub fields: &'static [(&'static str, usize, usize)],
}

macro_rules! layout {
    ($name:literal, $type:ty { $($field:ident),+ $(,)? }) => {
        $crate::format::layout::StructLayout {
            name: $name,
            size: size_of::<$type>(),
            fields: &[$((
                stringify!($field),
                core::mem::offset_of!($type, $field),
                {
                    const fn size<T, F>(_: fn(&T) -> &F) -> usize { size_of::<F>() }
                    size(|whole: &$type| &whole.$field)
                },
            )),+],
        }
    };
}
pub(super) use layout;

/// Every structure of the format.
pub const LAYOUT: &[&StructLayout] = &[
    &super::superblock::LAYOUT,
    &super::segment::LAYOUT,
    &super::block::LAYOUT,
    &super::identifier::LAYOUT,
    &super::lease::HEAD_LAYOUT,
    &super::lease::SLOT_LAYOUT,
    &super::lease::FENCE_LAYOUT,
    &super::lease::SEALS_LAYOUT,
    &super::lease::SEAL_ENTRY_LAYOUT,
    &super::record::layouts::RECORD_HEAD,
    &super::record::layouts::EPOCH_START,
    &super::record::layouts::RETAINED,
    &super::record::layouts::CLEAN_SHUTDOWN,
    &super::record::layouts::QUEUE_DEFINE,
    &super::record::layouts::QUEUE_DELETE,
    &super::record::layouts::MESSAGE,
    &super::record::layouts::ANNOTATIONS,
    &super::record::layouts::FRAGMENT,
    &super::record::layouts::UPLOAD_ABANDONED,
    &super::record::layouts::DELIVERY,
    &super::record::layouts::SETTLE,
    &super::record::layouts::RELEASE,
    &super::record::layouts::TRANSACTION,
    &super::record::layouts::HANDOUT,
    &super::record::layouts::DEPART,
    &super::record::layouts::DUPLICATE_ID,
    &super::record::layouts::SHARE,
    &super::record::layouts::MOVED,
    &super::record::STANDING,
    &super::record::checkpoint::CHECKPOINT,
    &super::record::checkpoint::CHECKPOINT_MESSAGE,
    &super::record::checkpoint::ENTRY,
    &super::record::checkpoint::FRAGMENT,
];
