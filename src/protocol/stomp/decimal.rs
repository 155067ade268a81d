//! Numbers as headers have them: decimal digits and nothing else.

/// Reads a number of digits only: no sign, no blanks, within 64 bits.
pub(super) fn parse(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.bytes().try_fold(0_u64, |number, octet| {
        let digit = octet.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Appends a number in digits.
pub(super) fn push(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0_u8; DECIMAL_LEN_MAX];
    let (mut rest, mut len) = (number, 0);
    for place in digits.rchunks_exact_mut(2) {
        // The remainder is below 100.
        let pair = usize::try_from(rest % 100).unwrap_or(0);
        place.copy_from_slice(PAIRS.get(2 * pair..2 * pair + 2).unwrap_or(b"00"));
        rest /= 100;
        len += 2;
        if rest == 0 {
            len -= usize::from(pair < 10);
            break;
        }
    }
    out.extend_from_slice(digits.get(DECIMAL_LEN_MAX - len..).unwrap_or_default());
}

/// The numbers from 00 to 99, in two digits each.
const PAIRS: &[u8; 200] = b"\
    0001020304050607080910111213141516171819\
    2021222324252627282930313233343536373839\
    4041424344454647484950515253545556575859\
    6061626364656667686970717273747576777879\
    8081828384858687888990919293949596979899\
";

/// Digits of `u64::MAX`.
const DECIMAL_LEN_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for number in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            push(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }

    #[test]
    fn only_digits_within_64_bits_are_numbers() {
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("18446744073709551615"), Some(u64::MAX));
        for text in [
            "",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "18446744073709551616",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
