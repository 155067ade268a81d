//! Mistakes in configuration: found before anything is made, with place, range and remedy.

#![allow(clippy::disallowed_methods, reason = "a test writes its input")]

use std::process::Command;

use crate::broker::Setup;
use crate::broker::fresh_folder;

/// Configuration, and what has to be said about it besides the file's name and a remedy.
const MISTAKES: [(&str, &str, &[&str]); 9] = [
    (
        "size",
        "[journal]\n\nsegment_size = \"4KiB\"\n",
        &[
            "toml:3:",
            "journal.segment_size",
            "from \"1MiB\" to \"16GiB\"",
        ],
    ),
    (
        "ready",
        "[journal]\nsegments_ready = 1\n",
        &["toml:2:", "journal.segments_ready", "from 2 to 16"],
    ),
    (
        "unknown",
        "[journal]\nsegmentsize = \"4MiB\"\n",
        &[
            "toml:2:",
            "unknown key",
            "nearest known key: journal.segment_size",
        ],
    ),
    (
        "section",
        "[jornal]\nsegment_size = \"4MiB\"\n",
        &["toml:", "unknown key"],
    ),
    (
        "type",
        "[limits]\nconnections_max = \"many\"\n",
        &["toml:2:", "limits.connections_max", "from 1 to 65536"],
    ),
    (
        "range",
        "[node]\nshards = 1000\n",
        &["toml:2:", "node.shards", "from 0 to 256"],
    ),
    ("syntax", "[node\nshards = 1\n", &["toml:1", "not TOML"]),
    (
        "relation",
        "[node]\nshards = 2\n[runtime]\npin = [0]\n",
        &["toml:4:", "runtime.pin", "1 CPUs for 2 shards"],
    ),
    (
        "user",
        "[[user]]\nname = \"a\"\n",
        &["toml:1:", "user.password", "missing"],
    ),
];

#[test]
fn mistakes_in_the_file_are_refused_and_nothing_is_made() {
    for (name, toml, words) in MISTAKES {
        let folder = fresh_folder(&format!("serve-config-{name}"));
        let setup = Setup::new(&folder.join("data")).config(toml);
        let refused = setup.refused();
        refused.expect(2, words);
        refused.expect(2, &["data.toml", "remedy: "]);
        assert!(!setup.data.exists(), "{name}: a folder was made");
        let checked = Command::new(&setup.program)
            .args(["config", "check"])
            .arg(setup.data.with_extension("toml"))
            .output()
            .unwrap();
        assert_eq!(
            checked.status.code(),
            Some(2),
            "{name}: config check agrees"
        );
        assert_eq!(
            String::from_utf8_lossy(&checked.stderr),
            refused.said,
            "{name}"
        );
    }
}

#[test]
fn a_missing_file_and_wrong_flags_are_usage() {
    let folder = fresh_folder("serve-usage");
    let mut setup = Setup::new(&folder.join("data"));
    setup.arguments = vec![
        "--config".into(),
        folder.join("none.toml").display().to_string(),
    ];
    setup.refused().expect(2, &["none.toml", "remedy: "]);
    setup.arguments = vec!["--shards".into(), "many".into()];
    setup.refused().expect(2, &["--shards", "many"]);
    assert!(!setup.data.exists());
}

/// A sound file prints what is in force, with where each value comes from.
#[test]
fn a_sound_file_is_told_back() {
    let folder = fresh_folder("serve-config-check");
    let file = folder.join("f.toml");
    std::fs::write(&file, "[journal]\nsegment_size = \"2MiB\"\n").unwrap();
    let setup = Setup::new(&folder.join("data"));
    let checked = Command::new(&setup.program)
        .args(["config", "check"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success());
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(
        text.contains("segment_size = \"2MiB\"") && text.contains("f.toml:2"),
        "{text}"
    );
}
