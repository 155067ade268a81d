//! Properties of the engine as a whole; single rules are tested beside their code and by the
//! transcripts of `tests/conformance`.

mod frames;
mod properties;
mod speed;
