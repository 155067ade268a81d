//! `docs/configuration.md`, written from the table of keys.

use std::fmt::Write as _;

use super::keys::{Key, Kind};
use super::read::all_keys;
use crate::node::exit::Exit;

const HEAD: &str = "\
# Configuration

Generated from `src/node/config/keys.rs` and `src/node/config/address.rs` by `just docs`; a test
compares them. Do not edit.

Forebay runs without a file. `forebay serve --config FILE` reads one; flags win over it; `forebay
config check FILE` prints what would be in force and where each value comes from. An unknown key, a
wrong type or a value out of range stops the start with file, line, allowed values and remedy.

Sizes stand in quotes: `B`, `KB`, `MB`, `GB` are powers of 1000; `KiB`, `MiB`, `GiB`, `TiB` powers
of 1024. Keys that end in `_ms` are whole milliseconds.

| flag of `serve` | key |
|---|---|
| `--data DIR` | `node.data` |
| `--shards N` | `node.shards` |
| `--stomp HOST:PORT` | `listen.stomp` |
| `--allow-anonymous-remote` | `listen.allow_anonymous_remote` |
";

/// What a key does, or that it does nothing yet.
fn effect(key: &Key) -> String {
    let is_offered = !matches!(
        key.kind,
        Kind::Setting {
            is_offered: false,
            ..
        }
    );
    let note = if is_offered {
        ""
    } else {
        "*Not offered in this release: refused.* "
    };
    format!("{note}{}", key.effect)
}

/// Writes the whole document.
pub fn reference_markdown() -> String {
    let mut text = String::from(HEAD);
    let mut section = "";
    for key in all_keys() {
        if key.section() != section {
            section = key.section();
            let title = match key.kind {
                Kind::UserText { .. } | Kind::Pattern => format!("[[{section}]]"),
                _ => format!("[{section}]"),
            };
            let _ = write!(
                text,
                "\n## `{title}`\n\n| key | default | allowed | effect |\n"
            );
            text.push_str("|---|---|---|---|\n");
        }
        let default = key
            .default
            .map_or_else(|| "none, must be there".to_string(), |d| format!("`{d}`"));
        let _ = writeln!(
            text,
            "| `{}` | {default} | {} | {} |",
            key.name(),
            key.allowed().replace('|', "\\|"),
            effect(key)
        );
    }
    text.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "| {} | {} |", exit.code(), exit.meaning());
    }
    text
}
