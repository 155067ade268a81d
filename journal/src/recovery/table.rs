//! Where the log ends: the table of `docs/format.md` 8 as data.
//!
//! Facts are gathered by `recovery::ahead`; here is only what follows from them. Each combination
//! matches exactly one row (`tests/recovery_table.rs` tries all of them and reads the same table
//! in the document).

/// What lies where the next block of the chain would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// There is no room: the last segment is full and none is prepared behind it.
    None,
    /// Zeros for the length of a block.
    Zero,
    /// A sound block header that belongs elsewhere: a former use of the file.
    Stale,
    /// Something else: a torn or rotted block, or the middle of an old one.
    Torn,
    /// The disk does not give it back.
    Unreadable,
}

/// The strongest thing found behind that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Later {
    /// No sound block of this journal that belongs where it lies.
    None,
    /// Only blocks that may have been in flight together with the missing one.
    InWindow,
    /// No proof, but a part of the area cannot be read.
    Unreadable,
    /// A block with a number that was given out only after the missing one was durable.
    BeyondWindow,
    /// A block whose `durable_upto` is at or above the first missing LSN.
    ProvesDurable,
}

/// What others know to be acknowledged: lease slot, peers, identifier ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Acked {
    /// Nobody was asked or knows.
    Unknown,
    /// All of it is below the first missing LSN.
    Below,
    /// Some of it is at or above the first missing LSN.
    AtOrAbove,
}

/// Whether the last record found is a clean shutdown, and no newer epoch began to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stopped {
    /// It is not.
    No,
    /// It is: the epoch's owner wrote nothing behind it.
    Yes,
}

/// What is known about the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What lies where the next block would be.
    pub place: Place,
    /// The strongest thing behind it.
    pub later: Later,
    /// What others know.
    pub acked: Acked,
    /// Whether the owner stopped in order.
    pub stopped: Stopped,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The log ends here and nothing was begun behind it.
    End,
    /// The log ends here; what was begun behind it was never acknowledged and goes to quarantine.
    CutTail,
    /// Acknowledged records are, or may be, missing: stop and name them.
    Corrupt,
}

/// One row. A column holds the values it matches.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number in the document.
    pub number: u8,
    /// Column "place of the next block".
    pub place: &'static [Place],
    /// Column "behind it".
    pub later: &'static [Later],
    /// Column "acknowledged elsewhere".
    pub acked: &'static [Acked],
    /// Column "stopped in order".
    pub stopped: &'static [Stopped],
    /// Column "verdict".
    pub verdict: Verdict,
    /// Why, for the message to the operator.
    pub reason: &'static str,
}

impl Place {
    /// All values, in the order of the document.
    pub const ALL: &'static [Self] = &[
        Self::None,
        Self::Zero,
        Self::Stale,
        Self::Torn,
        Self::Unreadable,
    ];
}

impl Later {
    /// All values, in the order of the document.
    pub const ALL: &'static [Self] = &[
        Self::None,
        Self::InWindow,
        Self::Unreadable,
        Self::BeyondWindow,
        Self::ProvesDurable,
    ];
}

impl Acked {
    /// All values, in the order of the document.
    pub const ALL: &'static [Self] = &[Self::Unknown, Self::Below, Self::AtOrAbove];
}

impl Stopped {
    /// All values, in the order of the document.
    pub const ALL: &'static [Self] = &[Self::No, Self::Yes];
}

const NOT_ABOVE: &[Acked] = &[Acked::Unknown, Acked::Below];
const UNPROVEN: &[Later] = &[Later::None, Later::InWindow, Later::Unreadable];
const WRITABLE: &[Place] = &[Place::None, Place::Zero, Place::Stale, Place::Torn];

/// The table.
pub const ROWS: &[Row] = &[
    Row {
        number: 1,
        place: Place::ALL,
        later: &[Later::ProvesDurable],
        acked: Acked::ALL,
        stopped: Stopped::ALL,
        verdict: Verdict::Corrupt,
        reason: "a later block says that the missing records were durable",
    },
    Row {
        number: 2,
        place: Place::ALL,
        later: &[Later::BeyondWindow],
        acked: Acked::ALL,
        stopped: Stopped::ALL,
        verdict: Verdict::Corrupt,
        reason: "a later block was written only after the missing one was durable",
    },
    Row {
        number: 3,
        place: Place::ALL,
        later: UNPROVEN,
        acked: &[Acked::AtOrAbove],
        stopped: Stopped::ALL,
        verdict: Verdict::Corrupt,
        reason: "the missing records were acknowledged, as known from elsewhere",
    },
    Row {
        number: 4,
        place: Place::ALL,
        later: &[Later::InWindow],
        acked: NOT_ABOVE,
        stopped: &[Stopped::Yes],
        verdict: Verdict::Corrupt,
        reason: "blocks lie behind a shutdown in order, behind which nothing is written",
    },
    Row {
        number: 5,
        place: Place::ALL,
        later: &[Later::Unreadable],
        acked: NOT_ABOVE,
        stopped: &[Stopped::No],
        verdict: Verdict::Corrupt,
        reason: "a part behind the last block cannot be read, so it may hold acknowledged records",
    },
    Row {
        number: 6,
        place: &[Place::Unreadable],
        later: &[Later::None, Later::InWindow],
        acked: NOT_ABOVE,
        stopped: &[Stopped::No],
        verdict: Verdict::Corrupt,
        reason: "the place of the next block cannot be read, so it may hold acknowledged records",
    },
    Row {
        number: 7,
        place: WRITABLE,
        later: &[Later::InWindow],
        acked: NOT_ABOVE,
        stopped: &[Stopped::No],
        verdict: Verdict::CutTail,
        reason: "writes in flight when power went: a later one arrived, this one did not",
    },
    Row {
        number: 8,
        place: &[Place::Torn],
        later: &[Later::None],
        acked: NOT_ABOVE,
        stopped: &[Stopped::No],
        verdict: Verdict::CutTail,
        reason: "a write in flight when power went arrived in part",
    },
    Row {
        number: 9,
        place: &[Place::None, Place::Zero, Place::Stale],
        later: &[Later::None],
        acked: NOT_ABOVE,
        stopped: &[Stopped::No],
        verdict: Verdict::End,
        reason: "nothing was begun behind the last block",
    },
    Row {
        number: 10,
        place: Place::ALL,
        later: &[Later::None, Later::Unreadable],
        acked: NOT_ABOVE,
        stopped: &[Stopped::Yes],
        verdict: Verdict::End,
        reason: "stopped in order",
    },
];

impl Row {
    /// Whether the row is the one for these facts.
    pub fn matches(&self, facts: &Facts) -> bool {
        self.place.contains(&facts.place)
            && self.later.contains(&facts.later)
            && self.acked.contains(&facts.acked)
            && self.stopped.contains(&facts.stopped)
    }
}

/// The row for these facts.
pub fn decide(facts: &Facts) -> &'static Row {
    ROWS.iter()
        .find(|row| row.matches(facts))
        .expect("the table is complete, shown by its test")
}
