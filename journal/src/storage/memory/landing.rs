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

    /// Draws one of those by which a part of a write of `size` bytes, two sectors or more, arrives.
    fn draw_torn(random: &mut Random, size: usize) -> Self {
        let sectors = size / LANDING_SECTOR_SIZE;
        // A border between two sectors.
        let border = 1 + random.below(sectors as u64 - 1) as usize;
        match random.below(4) {
            0 => Self::Prefix { sectors: border },
            1 => Self::Suffix { sectors: border },
            2 => Self::Without { sector: border - 1 },
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

/// Landings by which every write in flight arrives in part, each cut at a place and in a way of
/// its own: every combination of the cuts that [`landings`] knows if there are up to `count_max`,
/// or else so many drawn. None where fewer than two writes are in flight.
///
/// Shape: each write has at least two sectors of 512 bytes.
pub fn torn_together(random: &mut Random, sizes: &[usize], count_max: usize) -> Vec<Vec<Landing>> {
    if sizes.len() < 2 {
        return Vec::new();
    }
    let ways = |size: usize| 3 * (size / LANDING_SECTOR_SIZE - 1);
    let product = sizes
        .iter()
        .try_fold(1_usize, |all, &size| all.checked_mul(ways(size)));
    if product.is_none_or(|product| product > count_max) {
        let mut draw = |&size: &usize| Landing::draw_torn(random, size);
        return (0..count_max)
            .map(|_| sizes.iter().map(&mut draw).collect())
            .collect();
    }
    let mut all = vec![Vec::new()];
    for &size in sizes {
        let mut longer = Vec::new();
        for before in &all {
            for landing in torn_landings(size, usize::MAX) {
                let mut landings: Vec<Landing> = before.clone();
                landings.push(landing);
                longer.push(landings);
            }
        }
        all = longer;
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
