//! How the process ends: one number per kind of end, the same in code, help and documents.

use std::process::ExitCode;

/// Why the process ended. The numbers are part of the contract with init systems and scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Stopped cleanly: by SIGTERM, Ctrl-C, or after printing what was asked for.
    Clean,
    /// Failed while running: a disk error, a lost lease; the log's last lines say what. Of
    /// `status`: not all shards serve.
    Failed,
    /// Bad usage, or a configuration that is not accepted.
    Usage,
    /// The data folder is refused: foreign, newer, damaged, or held by another process.
    DataRefused,
    /// A listener could not be opened: address taken, not local, or not permitted.
    ListenFailed,
    /// The machine lacks something: io_uring, O_DIRECT, locked memory.
    MachineLacks,
    /// No broker runs on the data folder that an operator named.
    NoBroker,
    /// The broker refused what an operator asked for.
    Refused,
}

impl Exit {
    /// Every way to end, in the order of the numbers.
    pub const ALL: [Self; 8] = [
        Self::Clean,
        Self::Failed,
        Self::Usage,
        Self::DataRefused,
        Self::ListenFailed,
        Self::MachineLacks,
        Self::NoBroker,
        Self::Refused,
    ];

    /// Returns the exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::DataRefused => 3,
            Self::ListenFailed => 4,
            Self::MachineLacks => 5,
            Self::NoBroker => 6,
            Self::Refused => 7,
        }
    }

    /// Says what the code means, as in the help.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Clean => "clean stop",
            Self::Failed => "failed while running, could not be asked, or not all of it serves",
            Self::Usage => "bad usage or configuration",
            Self::DataRefused => "data folder refused (foreign, newer, damaged or held by another)",
            Self::ListenFailed => "could not listen",
            Self::MachineLacks => "the machine lacks something (io_uring, O_DIRECT, memlock)",
            Self::NoBroker => "no broker runs on the data folder",
            Self::Refused => "the broker refused: no such queue, or not now",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_in_order() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
