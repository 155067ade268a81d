//! Tests of the adapter as a whole; what writes and reads frames here is not the adapter's own.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]

mod handshake;
mod reader;
mod writer;

/// A frame of a client, put together by hand. Source: RFC 6455 5.2.
fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | u8::try_from(len).expect("at most 125")),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(len).expect("16 bits").to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
    bytes
}
