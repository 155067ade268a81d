//! Frames from several sources in one stream of bytes.
//!
//! The body of a large message goes out in parts. Until it is whole nothing else may come between:
//! receipts, and messages of other shards, are held back in order of their source. Bounded: each
//! shard sends no more than its window, and a connection that holds much back is not read.

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A shard's deliveries.
    Shard(u16),
    /// Everything else: whole frames.
    Control,
}

#[derive(Debug)]
struct Held {
    source: Source,
    bytes: Vec<u8>,
    /// Where in `bytes` whole frames end.
    ends: Vec<usize>,
    /// Whether the last frame in `bytes` goes on.
    is_partial: bool,
}

/// Which source has the stream, and what the others said meanwhile.
#[derive(Debug, Default)]
pub(super) struct Interleaving {
    current: Option<Source>,
    held: Vec<Held>,
    /// Shards whose message under way is thrown away: its subscription is gone.
    dropping: Vec<u16>,
    /// Where in the output of the last write a frame ends and another one follows.
    breaks: Vec<usize>,
}

impl Interleaving {
    /// Whether a body is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// Bytes held back.
    pub(super) fn held_len(&self) -> usize {
        self.held.iter().map(|held| held.bytes.len()).sum()
    }

    /// Whether bytes of this source are held back.
    pub(super) fn holds(&self, source: Source) -> bool {
        self.held.iter().any(|held| held.source == source)
    }

    /// Where in the output of the last write frames end that others follow; once.
    pub(super) fn take_breaks(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.breaks)
    }

    pub(super) fn set_dropping(&mut self, shard: u16, is_dropping: bool) {
        self.dropping.retain(|other| *other != shard);
        if is_dropping {
            self.dropping.push(shard);
        }
    }

    pub(super) fn is_dropping(&self, shard: u16) -> bool {
        self.dropping.contains(&shard)
    }

    /// Lets `write` put bytes of `source` where they belong; `is_whole` says whether its frame
    /// ends with them.
    pub(super) fn write(
        &mut self,
        source: Source,
        is_whole: bool,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.breaks.clear();
        if self.current.is_some_and(|current| current != source) {
            let held = self.held_of(source);
            write(&mut held.bytes);
            held.is_partial = !is_whole;
            if is_whole {
                held.ends.push(held.bytes.len());
            }
            return;
        }
        write(out);
        self.current = (!is_whole).then_some(source);
        while self.current.is_none() && !self.held.is_empty() {
            let held = self.held.remove(0);
            let start = out.len();
            self.breaks.push(start);
            let within = held.ends.iter().filter(|end| **end < held.bytes.len());
            self.breaks.extend(within.map(|end| start + end));
            out.extend_from_slice(&held.bytes);
            self.current = held.is_partial.then_some(held.source);
        }
    }

    fn held_of(&mut self, source: Source) -> &mut Held {
        let found = self.held.iter().position(|held| held.source == source);
        let index = found.unwrap_or_else(|| {
            self.held.push(Held {
                source,
                bytes: Vec::new(),
                ends: Vec::new(),
                is_partial: false,
            });
            self.held.len() - 1
        });
        &mut self.held[index]
    }
}

#[cfg(test)]
mod tests {
    use super::{Interleaving, Source};

    #[test]
    fn nothing_comes_between_the_parts_of_a_body() {
        let mut interleaving = Interleaving::default();
        let mut out = Vec::new();
        let mut broken = Vec::new();
        let (a, b) = (Source::Shard(0), Source::Shard(1));
        for (source, is_whole, text) in [
            (a, false, "a1 "),
            (Source::Control, true, "receipt "),
            (b, true, "b-whole "),
            (b, false, "b1 "),
            (a, false, "a2 "),
            (a, true, "a3 "),
            (a, true, "a-next "),
            (b, true, "b2 "),
        ] {
            interleaving.write(source, is_whole, &mut out, |out| {
                out.extend_from_slice(text.as_bytes());
            });
            broken.push(interleaving.take_breaks());
        }
        let text = String::from_utf8(out).expect("ascii");
        assert_eq!(text, "a1 a2 a3 receipt b-whole b1 b2 a-next ");
        // Behind a3, receipt, b-whole; then behind b2.
        let none = Vec::new;
        let expected = [
            none(),
            none(),
            none(),
            none(),
            none(),
            vec![9, 17, 25],
            none(),
            vec![31],
        ];
        assert_eq!(broken, expected);
        assert!(!interleaving.is_busy());
        assert_eq!(interleaving.held_len(), 0);
    }
}
