//! Properties of the engine as a whole; single rules are tested beside their code and by the
//! transcripts of `tests/conformance`.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]

mod frames;
mod properties;
