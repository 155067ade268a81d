//! Ways to bind the core wrongly, or disks that are not what they have to be. Each has to be found.

macro_rules! mutants {
    ($($name:ident: $words:literal,)+) => {
        /// One thing that is done wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant {
            $($name,)+
        }

        impl Mutant {
            /// All, in the order and with the words of the document.
            pub(crate) const ALL: &[(Self, &str)] = &[$((Self::$name, $words),)+];
        }
    };
}

mutants! {
    AckWhenDurable: "acknowledge what is durable, whatever the fence says",
    FenceCached: "the fence is read once and kept",
    FenceReadAhead: "a read of the fence is submitted before the completion that it has to cover",
    DamagedIsOpen: "a fence that cannot be made out counts as open",
    LossIgnored: "a shard goes on acknowledging behind its loss",
    AckOutOfOrder: "a completion counts though an older write is under way",
    ShutNotDurable: "the write that shuts a fence is said to be done before it is",
    ClaimOverwrites: "a claim is made though there is one",
    ClaimInPieces: "a claim comes into being before its bytes do",
    ScanOfBefore: "the scan of a standby from before its claim is taken",
    ScanBehindSeal: "a scan goes on behind the seal of the base",
    OwnClaimCached: "the look at one's own claim is answered from memory",
    SpaceShared: "an epoch goes on in the file of its base",
    TimesDiffer: "nodes keep to different profiles",
}
