//! Arbitrary bytes as records of a checkpoint, and as a story in which checkpoints are made.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forebay::queue::fuzz::exercise_record(data);
    forebay::queue::fuzz::exercise_story(data);
});
