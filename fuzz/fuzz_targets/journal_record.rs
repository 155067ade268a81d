//! Arbitrary bytes as the records of a sound block.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forebay_journal::fuzz::exercise_record(data);
});
