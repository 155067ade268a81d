//! Arbitrary damage to a small journal.

#![no_main]

thread_local! {
    static FOLDER: forebay_journal::fuzz::Folder = forebay_journal::fuzz::Folder::new();
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    FOLDER.with(|folder| folder.exercise(data));
});
