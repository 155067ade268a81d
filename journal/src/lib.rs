//! Append-only journal.
