//! Arbitrary bytes, arbitrarily cut, to one STOMP connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forebay::protocol::stomp::fuzz::exercise(data);
});
