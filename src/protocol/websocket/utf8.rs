//! UTF-8 that comes in parts. Source: RFC 6455 8.1.

/// Checks a text as it comes; keeps the beginning of a character that is cut.
#[derive(Clone, Debug)]
pub(super) struct Utf8Check {
    cut: [u8; 4],
    len: usize,
}

impl Utf8Check {
    pub(super) const fn new() -> Self {
        Self {
            cut: [0; 4],
            len: 0,
        }
    }

    /// Goes on with the next part; false if the text is no UTF-8.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((first, rest)) = bytes.split_first() else {
                return true;
            };
            bytes = rest;
            let Some(slot) = self.cut.get_mut(self.len) else {
                return false;
            };
            *slot = *first;
            self.len += 1;
            match std::str::from_utf8(self.cut.get(..self.len).unwrap_or_default()) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else {
            return true;
        };
        let cut = bytes.get(error.valid_up_to()..).unwrap_or_default();
        match self.cut.get_mut(..cut.len()) {
            Some(slot) if error.error_len().is_none() => {
                slot.copy_from_slice(cut);
                self.len = cut.len();
                true
            }
            _ => false,
        }
    }

    /// The text ends here; false if that cuts a character.
    pub(super) fn end(&self) -> bool {
        self.len == 0
    }
}
