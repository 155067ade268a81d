//! Arbitrary bytes as a superblock, a segment head and an identifier.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forebay_journal::fuzz::exercise_superblock(data);
});
