//! Arbitrary bytes as a superblock, a segment head, an identifier, and what a lease consists of.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forebay_journal::fuzz::exercise_superblock(data);
});
