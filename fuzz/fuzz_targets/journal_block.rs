//! Arbitrary bytes as a block of the journal.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forebay_journal::fuzz::exercise_block(data);
});
