//! What arrives of a write when power goes: any set of its 512-byte sectors.

use core::ops::Range;

use super::Random;

/// What a disk writes whole or not at all, in bytes.
pub const LANDING_SECTOR_SIZE: usize = 512;

/// Which sectors of a write arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing {
    /// None.
    Absent,
    /// All.
    Whole,
    /// The first ones.
    Prefix {
        /// How many.
        sectors: usize,
    },
    /// All but the first ones.
    Suffix {
        /// How many are missing.
        sectors: usize,
    },
    /// All but one.
    Without {
        /// Which is missing.
        sector: usize,
    },
    /// Those whose number, modulo 64, is set in the mask.
    Mask(u64),
}

impl Landing {
    /// Draws one for a write of `size` bytes.
    pub fn draw(random: &mut Random, size: usize) -> Self {
        let sectors = size.div_ceil(LANDING_SECTOR_SIZE).max(1);
        let sector = random.below(sectors as u64) as usize;
        match random.below(6) {
            0 => Self::Absent,
            1 => Self::Whole,
            2 => Self::Prefix { sectors: sector },
            3 => Self::Suffix { sectors: sector },
            4 => Self::Without { sector },
            _ => Self::Mask(random.draw()),
        }
    }

    /// The byte ranges of a write of `size` bytes that arrive.
    pub fn ranges(&self, size: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let sectors = size.div_ceil(LANDING_SECTOR_SIZE);
        (0..sectors)
            .filter(|&sector| self.has(sector))
            .map(move |sector| {
                let from = sector * LANDING_SECTOR_SIZE;
                from..(from + LANDING_SECTOR_SIZE).min(size)
            })
    }

    fn has(&self, at: usize) -> bool {
        match *self {
            Self::Absent => false,
            Self::Whole => true,
            Self::Prefix { sectors } => at < sectors,
            Self::Suffix { sectors } => at >= sectors,
            Self::Without { sector } => at != sector,
            Self::Mask(mask) => mask >> (at % 64) & 1 == 1,
        }
    }
}

/// All landings to try for writes in flight of these sizes: each subset of whole writes, and each
/// subset with one of its writes torn, at up to `cuts_max` places in each of three ways.
///
/// Bounds: at most 6 writes (64 subsets); more are the caller's mistake and panic.
pub fn landings(sizes: &[usize], cuts_max: usize) -> Vec<Vec<Landing>> {
    assert!(
        sizes.len() <= 6,
        "{} writes in flight are too many subsets",
        sizes.len()
    );
    let mut all = Vec::new();
    for subset in 0..1_u32 << sizes.len() {
        let whole = |index: usize| {
            if subset >> index & 1 == 1 {
                Landing::Whole
            } else {
                Landing::Absent
            }
        };
        let base: Vec<Landing> = (0..sizes.len()).map(whole).collect();
        for (torn, &size) in sizes.iter().enumerate() {
            // Once for each subset of the others.
            if subset >> torn & 1 == 1 {
                for landing in torn_landings(size, cuts_max) {
                    let mut landings = base.clone();
                    landings[torn] = landing;
                    all.push(landings);
                }
            }
        }
        all.push(base);
    }
    all
}

/// Prefixes, suffixes and single holes, spread over the sectors of a write.
fn torn_landings(size: usize, cuts_max: usize) -> impl Iterator<Item = Landing> {
    let sectors = size / LANDING_SECTOR_SIZE;
    let cuts = cuts_max.min(sectors.saturating_sub(1));
    (0..cuts).flat_map(move |cut| {
        let sector = 1 + cut * (sectors - 1) / cuts.max(1);
        let hole = cut * (sectors - 1) / cuts.max(1);
        [
            Landing::Prefix { sectors: sector },
            Landing::Suffix { sectors: sector },
            Landing::Without { sector: hole },
        ]
    })
}
