//! Ways to get the protocol wrong, each of which the model has to find.

macro_rules! weakenings {
    ($($name:ident: $words:literal,)+) => {
        /// One thing that is done wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Weakening {
            $($name,)+
        }

        impl Weakening {
            /// All, in the order and with the words of the document.
            pub(crate) const ALL: &[(Self, &str)] = &[$((Self::$name, $words),)+];
        }
    };
}

weakenings! {
    NoBarrier: "acknowledge without reading the fence",
    BarrierBeforeDurable: "a read of the fence counts for what got durable only behind it",
    AckOutOfOrder: "acknowledge a block before an older one is durable",
    ScanBeforeShut: "scan first, shut the fences after",
    ShutNotAwaited: "scan while the write that shuts a fence is under way",
    OnlyHighestShut: "shut only the fence of the highest epoch below",
    SealsReadBeforeShut: "read an epoch's seals before its fence is shut, not after",
    SealsIgnored: "scan again behind an older epoch's seals",
    LowestTableCounts: "the lowest seal table binds, not the highest",
    HalfTableCounts: "a seal table counts though it is half written; what it does not say is empty",
    NoSeals: "serve without writing seals",
    CheckBeforeSeals: "look at one's own fence before the seals are durable",
    OwnFenceNotRead: "serve without looking at one's own fence",
    FenceOpenedLater: "the claim exists before its fence is written open",
    ClaimInSlot: "say in one's slot that a higher epoch is claimed, not in a place of the epoch",
    OldSpaceReused: "go on in the file of an older epoch",
}
