//! Arbitrary bytes as a selector and a message.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forebay::selector::fuzz::exercise(data);
});
