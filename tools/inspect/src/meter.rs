//! What is read, as a whole: shown while it goes on, and slowed down when that was asked for.
//!
//! Every read of a journal goes by here ([`crate::file::read_at`]), whatever command makes it. The
//! tool has one thread, so there is one meter.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

struct Meter {
    pace: Option<Pace>,
    began: Instant,
    bar: ProgressBar,
}

/// Holds reading to a rate.
#[derive(Clone, Copy, Debug)]
struct Pace {
    bytes_per_second: u64,
    bytes: u64,
}

impl Pace {
    /// Counts bytes; returns how long to wait, so long after the start.
    fn note(&mut self, bytes: u64, elapsed: Duration) -> Duration {
        self.bytes += bytes;
        let nanos = u128::from(self.bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        due.saturating_sub(elapsed)
    }
}

/// Begins to measure. `bytes_per_second`: read no faster; none: as fast as it goes.
/// `is_shown`: whether a bar may be drawn where nothing else is printed meanwhile.
pub(crate) fn begin(bytes_per_second: Option<u64>, is_shown: bool) {
    // On standard error, and nowhere unless that is a terminal.
    let bar = if is_shown {
        ProgressBar::no_length()
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{spinner} {msg}{bytes} read, {bytes_per_sec}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    METER.set(Some(Meter {
        pace: bytes_per_second.map(|bytes_per_second| Pace {
            bytes_per_second,
            bytes: 0,
        }),
        began: Instant::now(),
        bar,
    }));
}

/// Says what is going on, of how many bytes.
pub(crate) fn stage(what: &str, bytes: u64) {
    METER.with_borrow(|meter| {
        let Some(Meter { bar, .. }) = meter else {
            return;
        };
        let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        bar.set_position(0);
        bar.set_length(bytes);
        bar.reset_eta();
    });
}

/// Bytes were read.
pub(crate) fn note(bytes: u64) {
    let wait = METER.with_borrow_mut(|meter| {
        let meter = meter.as_mut()?;
        meter.bar.inc(bytes);
        let elapsed = meter.began.elapsed();
        Some(meter.pace.as_mut()?.note(bytes, elapsed))
    });
    if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
        std::thread::sleep(wait);
    }
}

/// Takes the bar off the terminal.
pub(crate) fn end() {
    if let Some(meter) = METER.take() {
        meter.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_the_whole_time() {
        let mut pace = Pace {
            bytes_per_second: 1 << 20,
            bytes: 0,
        };
        let ms = Duration::from_millis;
        assert_eq!(pace.note(1 << 20, ms(0)), ms(1000));
        assert_eq!(pace.note(1 << 20, ms(1000)), ms(1000));
        assert_eq!(pace.note(1 << 19, ms(3000)), ms(0), "it was slower anyway");
        assert_eq!(pace.note(1 << 20, ms(3000)), ms(500));
    }
}
