//! What one connection may cost.

use super::heart_beat::HeartBeatOffer;

/// Bounds and settings of one connection.
///
/// Source: STOMP 1.2 "Size Limits": number of headers, length of lines, size of the body.
/// A line has no bound of its own: the bound of the whole head is the bound of each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body in bytes; a larger `content-length` is refused before anything is waited for.
    pub message_size_max: u64,
    /// Longest head in bytes: command line, header lines and the empty line.
    pub header_bytes_max: usize,
    /// Most header lines in one frame.
    pub header_count_max: usize,
    /// A body that is not all there yet and is larger than this is given out in parts.
    pub body_inline_max: usize,
    /// Microseconds from the start of the connection until the whole `CONNECT` must be here.
    pub connect_deadline_us: u64,
    /// What the server offers in `CONNECTED`.
    pub heart_beat: HeartBeatOffer,
}

impl Limits {
    /// Returns the most unconsumed bytes this engine ever asks the caller to keep.
    ///
    /// A caller whose buffer holds this many never stands with a full buffer and `None`.
    pub fn input_size_max(&self) -> usize {
        // A frame that must be whole: head, then a body that is kept whole (of a control frame
        // of STOMP 1.0 up to the size of a head), then NUL; one more byte shows it is too long.
        let body_size_max = self.body_inline_max.max(self.header_bytes_max);
        self.header_bytes_max
            .saturating_add(body_size_max)
            .saturating_add(2)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size_max: 64 << 20,
            header_bytes_max: 64 << 10,
            header_count_max: 512,
            body_inline_max: 64 << 10,
            connect_deadline_us: 10_000_000,
            heart_beat: HeartBeatOffer::default(),
        }
    }
}
