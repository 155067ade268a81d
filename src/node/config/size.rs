//! Sizes as people write them: a number and a unit, decimal (KB) or binary (KiB).

/// Units, largest first so that formatting takes the first that divides.
const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a size such as `256MiB`, `64 MiB`, `50MB` or `4096`.
///
/// Units: bytes. KB, MB, GB are powers of 1000; KiB, MiB, GiB, TiB powers of 1024; letters must be
/// written in this case, because `mb` has been taken for both. Returns `None` for anything else,
/// fractions and numbers beyond 64 bits included.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let count: u64 = digits.parse().ok()?;
    let factor = match unit.trim_start() {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    count.checked_mul(factor)
}

/// Writes a size so that [`parse_size`] reads the same number back, in the largest whole unit.
pub fn format_size(bytes: u64) -> String {
    let whole = UNITS
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match whole {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_what_they_say() {
        assert_eq!(parse_size("256MiB"), Some(256 << 20));
        assert_eq!(parse_size("64 MiB"), Some(64 << 20));
        assert_eq!(parse_size("50MB"), Some(50_000_000));
        assert_eq!(parse_size("4096"), Some(4096));
        for wrong in [
            "",
            "MiB",
            "1.5MiB",
            "-1MiB",
            "1mib",
            "1Mib",
            "1 M",
            "99999999999GiB",
        ] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes in any::<u64>(), shift in 0u32..40) {
            let bytes = (bytes >> 24) >> (shift % 16) << (shift % 20);
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = parse_size(&text);
        }
    }
}
