//! What can be wrong with a configuration, with all that is needed to put it right.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is the default.
    Default,
    /// In the file, at a line counted from one.
    File {
        /// The file as it was named.
        file: PathBuf,
        /// The line, from one.
        line: usize,
    },
    /// On the command line.
    Flag {
        /// The flag with its dashes.
        flag: &'static str,
    },
}

/// A configuration that is not accepted. Always the operator's fault; nothing was started.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The file as it was named.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    Syntax {
        /// Where the parser stopped.
        place: Place,
        /// What it said.
        problem: String,
    },
    /// A key or section that does not exist.
    UnknownKey {
        /// Where it is written.
        place: Place,
        /// Its full name.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type or outside its range.
    WrongValue {
        /// Where it is written.
        place: Place,
        /// The key's full name.
        key: &'static str,
        /// The value as it is written, or its type.
        found: String,
        /// What is allowed, in words.
        allowed: String,
        /// The default, as TOML; `None` when there is none.
        default: Option<&'static str>,
    },
    /// A key that must be there is not.
    Missing {
        /// Where the table begins that lacks it.
        place: Place,
        /// The key's full name.
        key: &'static str,
        /// What is allowed, in words.
        allowed: String,
    },
    /// A key whose behaviour is not built yet.
    NotOffered {
        /// Where it is written.
        place: Place,
        /// The key's full name.
        key: &'static str,
    },
    /// Two tables of a list with one name.
    Duplicate {
        /// Where the second is written.
        place: Place,
        /// The list: `user` or `address`.
        table: &'static str,
        /// The name.
        name: String,
    },
    /// More tables in a list than there may be.
    TooMany {
        /// Where the first is written that is too many.
        place: Place,
        /// The list.
        table: &'static str,
        /// Most tables.
        max: u32,
    },
    /// A value that does not go with another.
    Relation {
        /// Where it is written.
        place: Place,
        /// The key's full name.
        key: &'static str,
        /// What does not fit.
        problem: String,
        /// What to write.
        remedy: String,
    },
    /// A listener that everybody on the network could use, and nobody said that this is wanted.
    OpenToNetwork {
        /// Where the address is written.
        place: Place,
        /// The address.
        address: SocketAddr,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Flag { flag } => write!(f, "command line, {flag}"),
        }
    }
}

impl ConfigError {
    /// Says where and what is wrong, and what is allowed there.
    fn problem(&self) -> String {
        match self {
            Self::Unreadable { file, source } => {
                format!("{}: cannot be read: {source}", file.display())
            }
            Self::Syntax { place, problem } => format!("{place}: not TOML: {problem}"),
            Self::UnknownKey {
                place,
                key,
                nearest,
            } => {
                let hint = nearest.map_or_else(String::new, |nearest| {
                    format!("\n  nearest known key: {nearest}")
                });
                format!("{place}: unknown key {key}{hint}")
            }
            Self::WrongValue {
                place,
                key,
                found,
                allowed,
                ..
            } => {
                format!("{place}: {key} = {found} is not allowed\n  allowed: {allowed}")
            }
            Self::Missing {
                place,
                key,
                allowed,
            } => {
                format!("{place}: {key} is missing\n  allowed: {allowed}")
            }
            Self::NotOffered { place, key } => {
                format!("{place}: {key} is not offered in this release")
            }
            Self::Duplicate { place, table, name } => {
                format!("{place}: {table} {name:?} is there twice")
            }
            Self::TooMany { place, table, max } => {
                format!("{place}: there are more than {max} [[{table}]]")
            }
            Self::Relation {
                place,
                key,
                problem,
                ..
            } => format!("{place}: {key}: {problem}"),
            Self::OpenToNetwork { place, address } => format!(
                "{place}: listen.stomp = \"{address}\" is not a loopback address and no user is \
                 configured, so anybody on the network could read, send and remove messages"
            ),
        }
    }

    /// Says what to do about it.
    fn remedy(&self) -> String {
        let text = match self {
            Self::Unreadable { .. } => {
                "name a readable file, or leave --config away to run with the defaults"
            }
            Self::Syntax { .. } => {
                "a line is `key = value` under a `[section]`; text and sizes stand in quotes"
            }
            Self::UnknownKey { .. } => {
                "correct or remove it; docs/configuration.md lists every key"
            }
            Self::WrongValue { default: None, .. } => "write such a value",
            Self::WrongValue {
                default: Some(default),
                ..
            } => {
                return format!("write such a value, or remove the line for the default {default}");
            }
            Self::Missing { .. } => "add it",
            Self::NotOffered { .. } => "remove the line",
            Self::Duplicate { table, .. } => return format!("remove one of the two [[{table}]]"),
            Self::TooMany { .. } => "join tables by a pattern with wildcards",
            Self::Relation { remedy, .. } => remedy,
            Self::OpenToNetwork { .. } => {
                "add a [[user]] with name and password; or, to let everybody in, set \
                 listen.allow_anonymous_remote = true (--allow-anonymous-remote); or listen on \
                 127.0.0.1"
            }
        };
        text.to_string()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  remedy: {}", self.problem(), self.remedy())
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}
