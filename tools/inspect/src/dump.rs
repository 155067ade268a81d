//! Bytes as a hexadecimal dump, piece by piece.

use std::io::{self, Write};

/// Bytes in a line.
const LINE: usize = 16;

/// Takes bytes in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    offset: u64,
    waiting: Vec<u8>,
}

impl Dump {
    /// Prints all whole lines.
    pub(crate) fn put(&mut self, mut bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        while self.waiting.len() + bytes.len() >= LINE {
            let (now, later) = bytes.split_at(LINE - self.waiting.len());
            self.waiting.extend_from_slice(now);
            bytes = later;
            self.line(out)?;
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Prints what is left.
    pub(crate) fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.line(out)
    }

    fn line(&mut self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{:08x} ", self.offset)?;
        for index in 0..LINE {
            match self.waiting.get(index) {
                Some(byte) => write!(out, " {byte:02x}")?,
                None => write!(out, "   ")?,
            }
        }
        let letters = self.waiting.iter().map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        });
        writeln!(out, "  |{}|", letters.collect::<String>())?;
        self.offset += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_no_difference() {
        let bytes: Vec<u8> = (0..=40).collect();
        let dump = |pieces: usize| {
            let (mut dump, mut out) = (Dump::default(), Vec::new());
            for piece in bytes.chunks(pieces) {
                dump.put(piece, &mut out).expect("to memory");
            }
            dump.end(&mut out).expect("to memory");
            String::from_utf8(out).expect("letters")
        };
        let whole = dump(41);
        assert!((1..41).all(|pieces| dump(pieces) == whole));
        let last = "00000020  20 21 22 23 24 25 26 27 28                       | !\"#$%&'(|\n";
        assert!(whole.ends_with(last), "{whole}");
    }
}
