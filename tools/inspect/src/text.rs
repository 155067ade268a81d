//! Numbers, times and bytes as people and machines read them.

use std::fmt::Write as _;

use data_encoding::BASE64;

/// Bytes of a body or head shown without being asked for more.
pub(crate) const PREVIEW_SIZE: usize = 48;

/// A size in bytes: `512 B`, `4 KiB`, `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Wall-clock milliseconds as `2026-11-22 01:20:11.042 UTC`; `-` for zero.
pub(crate) fn time(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let ms = ms % 1000;
    format!("{year}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{ms:03} UTC")
}

/// Wall-clock milliseconds from what [`time`] prints, seconds and their fraction left out at will,
/// or from a bare number of milliseconds.
///
/// Errors: what is wrong, in words.
pub(crate) fn parse_time(text: &str) -> Result<u64, String> {
    if let Ok(unix_ms) = text.parse() {
        return Ok(unix_ms);
    }
    let refused = || format!("{text} is no time: 2026-11-27 20:15:00, or milliseconds since 1970");
    let bare = text.trim_end_matches("UTC").trim_end_matches('Z').trim();
    let (date, clock) = bare.split_once([' ', 'T']).unwrap_or((bare, "0:0"));
    let numbers = |part: &str, separator: char| -> Option<Vec<u64>> {
        part.split(separator).map(|one| one.parse().ok()).collect()
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let fraction = format!("{fraction:0<3}");
    let ms: u64 = fraction.parse().map_err(|_| refused())?;
    let date = numbers(date, '-').ok_or_else(refused)?;
    let clock = numbers(clock, ':').ok_or_else(refused)?;
    let ([year, month, day], [hours, minutes, seconds @ ..]) = (&date[..], &clock[..]) else {
        return Err(refused());
    };
    let seconds = seconds.first().copied().unwrap_or(0);
    let is_in_range = *hours < 24 && *minutes < 60 && seconds < 60 && ms < 1000 && clock.len() < 4;
    // 1970 to 9999, day by day: a filter is parsed once.
    let days = (0..2_932_897).find(|days| civil(*days) == (*year, *month, *day));
    let days = days.filter(|_| is_in_range).ok_or_else(refused)?;
    Ok(days * 86_400_000 + (hours * 3600 + minutes * 60 + seconds) * 1000 + ms)
}

/// Year, month and day of a day since 1970, by the calendar's 400-year cycle of 146097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years are counted from 1 March, so that a leap day is the last of its year.
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = cycle * 400 + year + u64::from(month <= 2);
    (year, month, day)
}

/// Bytes as text that is safe to print: what is not printable UTF-8 is escaped.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.extend(chunk.valid().chars().flat_map(char::escape_debug));
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a string takes all that is written");
        }
    }
    text
}

/// The beginning of some bytes, escaped, in quotes; all of them if `is_whole`.
pub(crate) fn quoted(bytes: &[u8], is_whole: bool) -> String {
    if is_whole || bytes.len() <= PREVIEW_SIZE {
        return format!("\"{}\"", escaped(bytes));
    }
    format!("\"{}\"...", escaped(&bytes[..PREVIEW_SIZE]))
}

/// Bytes as lines of text: as [`escaped`], but line ends, tabs, quotes and backslashes are kept.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' | '\t' => text.push(letter),
                _ if letter.is_control() => text.extend(letter.escape_debug()),
                _ => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a string takes all that is written");
        }
    }
    text
}

/// A name on a line of its own: printable as it is, or else escaped in quotes.
pub(crate) fn name(bytes: &[u8]) -> String {
    let text = escaped(bytes);
    if text.as_bytes() == bytes && !text.contains(' ') && !text.is_empty() {
        text
    } else {
        format!("\"{text}\"")
    }
}

/// RFC 4648 base64, padded.
pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// `1 block`, `2 blocks`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(time(1_000), "1970-01-01 00:00:01.000 UTC");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00.000 UTC");
        assert_eq!(time(1_767_225_599_999), "2025-12-31 23:59:59.999 UTC");
        let sizes = [0, 1023, 4096, 1536 << 10, 256 << 20].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "4 KiB", "1.5 MiB", "256 MiB"]);
    }

    #[test]
    fn what_is_printed_is_parsed() {
        for unix_ms in [0, 1_000, 951_782_400_000, 1_767_225_599_999] {
            let printed = if unix_ms == 0 {
                "1970-01-01".to_owned()
            } else {
                time(unix_ms)
            };
            assert_eq!(parse_time(&printed), Ok(unix_ms), "{printed}");
        }
        assert_eq!(parse_time("2026-11-27 20:15"), Ok(1_795_810_500_000));
        assert_eq!(parse_time("2026-11-27T20:15:00Z"), Ok(1_795_810_500_000));
        assert_eq!(parse_time("17"), Ok(17));
        for wrong in ["", "soon", "2026-02-30", "2026-01-01 25:00", "2026-01-01 1"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_unprintable_passes() {
        assert_eq!(escaped(b"a\n\x1b[31m\xff\"z"), "a\\n\\u{1b}[31m\\xff\\\"z");
        assert_eq!(name(b"orders.eu"), "orders.eu");
        assert_eq!(name(b"two words"), "\"two words\"");
        assert_eq!(
            quoted(&[b'x'; 60], false),
            format!("\"{}\"...", "x".repeat(48))
        );
    }
}
