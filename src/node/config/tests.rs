//! The configuration against its own table, its document and wrong input.

use super::address::SETTINGS;
use super::*;
use crate::limits::ADDRESS_TABLES_MAX;
use crate::pattern::Pattern;
use crate::shard::{Policy, PolicySettings};
use proptest::prelude::*;

fn load(text: &str) -> Result<Loaded, ConfigError> {
    Loaded::from_text(Path::new("f.toml"), text, &Overrides::default())
}

fn refusal(text: &str) -> String {
    match load(text) {
        Err(error) => error.to_string(),
        Ok(loaded) => panic!("accepted {text:?}: {:?}", loaded.config),
    }
}

#[test]
fn every_key_has_its_own_field_and_a_default_within_range() {
    // Filling one key changes what that key shows and nothing else: no two keys share a field.
    let usual = Config::default();
    for key in KEYS.iter().filter(|key| !key.is_user()) {
        let line = match key.kind {
            Kind::Name { .. } => "\"other\"".to_string(),
            Kind::Folder { .. } => "\"/other\"".into(),
            Kind::Flag { slot } => (!*slot(&mut usual.clone())).to_string(),
            Kind::Integer { most, .. } => most.to_string(),
            Kind::OptionalCount { most, .. } => most.to_string(),
            Kind::OptionalSize { .. } => "9".into(),
            Kind::Pair { most, .. } => format!("[{most}, {most}]"),
            Kind::Size { most, .. } | Kind::Rate { most, .. } => most.to_string(),
            Kind::OptionalAddress { .. } => "\"[::1]:9\"".into(),
            Kind::Address { .. } => "\"[::1]:9\"".into(),
            Kind::Placement { .. } => "[7]".into(),
            Kind::DiskFull { .. } => "\"fail\"".into(),
            Kind::UserText { .. } | Kind::Pattern | Kind::Setting { .. } => continue,
        };
        let text = format!("[{}]\n{} = {line}\n", key.section(), key.name());
        let loaded = load(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        for other in KEYS {
            let same = other.show(&loaded.config) == other.show(&usual);
            assert_eq!(same, other.path != key.path, "{} after {text}", other.path);
        }
        assert_eq!(
            key.show(&usual),
            key.default.expect("all but users have one"),
            "{}",
            key.path
        );
    }
}

#[test]
fn the_document_is_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let generated = reference_markdown();
    #[allow(
        clippy::disallowed_methods,
        reason = "the test reads and writes a document"
    )]
    {
        if std::env::var_os("FOREBAY_WRITE_DOCS").is_some() {
            std::fs::write(&file, &generated).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            written == generated,
            "docs/configuration.md is stale: run `just docs`"
        );
    }
}

#[test]
fn inputs_of_the_limits_are_keys() {
    for input in [
        "shards",
        "segment_size",
        "segments_ready",
        "message_size_max",
        "connections_max",
        "block_cache_size",
        "volatile_size_max",
    ] {
        assert_eq!(
            KEYS.iter().filter(|key| key.name() == input).count(),
            1,
            "{input}"
        );
    }
}

#[test]
fn the_effective_configuration_reads_back_the_same() {
    let text = "[node]\nname = \"a\"\nshards = 2\n[runtime]\npin = [1, 0]\n\
                [[user]]\nname = \"ann\"\npassword = \"secret\"\n";
    let loaded = load(text).unwrap();
    let shown = loaded.effective_toml();
    assert!(!shown.contains("secret"));
    assert!(!format!("{:?}", loaded.config).contains("secret"));
    let again = load(&shown).unwrap();
    assert_eq!(again.config.users[0].password, "(hidden)");
    let again = Config {
        users: loaded.config.users.clone(),
        ..again.config
    };
    assert_eq!(again, loaded.config);
}

#[test]
fn a_limit_over_all_addresses_is_none_or_at_least_one() {
    let limits = |text: &str| load(&format!("[limits]\n{text}\n")).unwrap().config.limits;
    let set = limits("global_max_size_bytes = \"2GiB\"\nglobal_max_size_messages = 7");
    assert_eq!(set.global_max_size_bytes, Some(2 << 30));
    assert_eq!(set.global_max_size_messages, Some(7));
    let none = limits("global_max_size_bytes = -1\nglobal_max_size_messages = -1");
    assert_eq!(none, limits(""));
    for wrong in [
        "bytes = 0",
        "bytes = \"0B\"",
        "messages = 0",
        "messages = -2",
    ] {
        let said = refusal(&format!("[limits]\nglobal_max_size_{wrong}\n"));
        assert!(said.contains("or -1 for none"), "{said}");
    }
}

#[test]
fn an_unknown_key_names_line_and_nearest() {
    let said = refusal("# a comment\n[journal]\nsegmnt_size = \"1MiB\"\n");
    assert!(
        said.starts_with("f.toml:3: unknown key journal.segmnt_size"),
        "{said}"
    );
    assert!(
        said.contains("nearest known key: journal.segment_size"),
        "{said}"
    );
    let said = refusal("[node]\nsegment_size = \"1MiB\"\n");
    assert!(
        said.contains("nearest known key: journal.segment_size"),
        "{said}"
    );
    let said = refusal("\n\n[jurnal]\n");
    assert!(said.starts_with("f.toml:3: unknown key jurnal"), "{said}");
    let said = refusal("[node]\nxyzzyplugh = 1\n");
    assert!(!said.contains("nearest"), "{said}");
}

#[test]
fn a_wrong_value_names_line_range_and_remedy() {
    let cases = [
        (
            "[journal]\nsegment_size = \"512KiB\"",
            "\"1MiB\" to \"16GiB\", a multiple of 4KiB",
        ),
        ("[journal]\nsegment_size = 1048577", "a multiple of 4KiB"),
        ("[journal]\nsegment_size = \"1 megabyte\"", "such a value"),
        ("[journal]\nsegments_ready = 1", "from 2 to 16"),
        ("[node]\nshards = 257", "from 0 to 256"),
        ("[node]\nshards = \"two\"", "a whole number"),
        ("[node]\nshards = -1", "a whole number"),
        ("[node]\nshards = 99999999999999999999", "from 0 to 256"),
        ("[node]\nname = \"a b\"", "a name of 1 to 64"),
        ("[node]\ndata = \"\"", "a path"),
        (
            "[listen]\nstomp = \"example.org:1\"",
            "host names are not looked up",
        ),
        ("[listen]\nstomp = 61613", "an IP address and a port"),
        (
            "[listen]\nallow_anonymous_remote = \"yes\"",
            "true or false",
        ),
        ("[stomp]\nheart_beat_ms = [1]", "two whole numbers"),
        ("[stomp]\nheart_beat_ms = 1.5", "a fraction"),
        ("[stomp]\nprefetch_default = 0", "from 1 to"),
        ("[runtime]\npin = \"all\"", "\"auto\", \"off\""),
        ("[runtime]\npin = [1, 1]", "each once"),
    ];
    for (text, expected) in cases {
        let said = refusal(text);
        assert!(said.starts_with("f.toml:2: "), "{said}");
        assert!(
            said.contains(expected) && said.contains("remedy: "),
            "{expected}: {said}"
        );
    }
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let said = refusal("[node]\nshards = 2\n[runtime]\npin = [0]\n");
    assert!(said.contains("1 CPUs for 2 shards"), "{said}");
    let said = refusal("[node]\nbusy_poll_us = 100\n[runtime]\nscheduling_slice_ms = 0\n");
    assert!(said.starts_with("f.toml:2: "), "{said}");
    assert!(said.contains("scheduling_slice_ms 10"), "{said}");
    assert!(load("[node]\nbusy_poll_us = 100\n").is_ok());
}

#[test]
fn an_open_listener_needs_users_or_a_word() {
    let open = "[listen]\nstomp = \"0.0.0.0:61613\"\n";
    let said = refusal(open);
    assert!(said.starts_with("f.toml:2: "), "{said}");
    assert!(
        said.contains("[[user]]") && said.contains("--allow-anonymous-remote"),
        "{said}"
    );
    let user = "[[user]]\nname = \"a\"\npassword = \"b\"\n";
    assert!(load(&format!("{open}{user}")).is_ok());
    assert!(load(&format!("{open}allow_anonymous_remote = true\n")).is_ok());
    for safe in ["127.0.0.2:1", "[::1]:1", "localhost:1"] {
        assert!(
            load(&format!("[listen]\nstomp = \"{safe}\"\n")).is_ok(),
            "{safe}"
        );
    }
}

#[test]
fn users_are_whole_and_distinct_and_their_secrets_stay_out_of_errors() {
    let said = refusal("[[user]]\nname = \"a\"\n");
    assert!(said.contains("user.password is missing"), "{said}");
    let said = refusal("[user]\nname = \"a\"\npassword = \"b\"\n");
    assert!(said.contains("[[user]] with two brackets"), "{said}");
    let said = refusal("[[user]]\nname = \"a\"\npasword = \"b\"\n");
    assert!(said.contains("nearest known key: user.password"), "{said}");
    let said = refusal("[[user]]\nname = \"a\"\npassword = 4711\n");
    assert!(
        said.contains("user.password") && !said.contains("4711"),
        "{said}"
    );
    let one = "[[user]]\nname = \"a\"\npassword = \"b\"\n";
    let said = refusal(&format!("{one}{one}"));
    assert!(
        said.starts_with("f.toml:4: user \"a\" is there twice"),
        "{said}"
    );
}

#[test]
fn every_setting_of_an_address_has_its_own_field_and_the_default_of_the_policy() {
    let written = |lines: &dyn Fn(&Key) -> String| {
        let mut settings = PolicySettings::default();
        for key in SETTINGS {
            let Kind::Setting { setting, .. } = key.kind else {
                panic!("{} is no setting", key.path);
            };
            let value = read::value_of(&lines(key));
            setting
                .read(&mut settings, &value)
                .unwrap_or_else(|| panic!("{}", key.path));
        }
        let pattern = Pattern::parse("#").unwrap();
        AddressSettings { pattern, settings }
    };
    let defaults = written(&|key| key.default.unwrap().to_string());
    assert_eq!(defaults.settings.clone().resolve(), Policy::default());
    for key in SETTINGS {
        let Kind::Setting { setting, .. } = key.kind else {
            panic!("{} is no setting", key.path);
        };
        let other = match setting {
            Setting::Flag(_) => (key.default == Some("false")).to_string(),
            Setting::Number { most, .. } => most.to_string(),
            Setting::Size(_) => "\"1KiB\"".into(),
            Setting::Factor { .. } => "2.5".into(),
            Setting::Address(_) | Setting::Property(_) => "\"other\"".into(),
            Setting::Word { words, .. } => format!("{:?}", words[words.len() - 1]),
        };
        let changed = written(&|one| {
            if one.path == key.path {
                other.clone()
            } else {
                one.default.unwrap().to_string()
            }
        });
        for ((name, value), (_, usual)) in changed.shown().zip(defaults.shown()) {
            assert_eq!(
                value != usual,
                name == key.name(),
                "{name} after {}",
                key.path
            );
            assert_eq!(
                value == other,
                name == key.name() || usual == other,
                "{name}"
            );
        }
    }
}

#[test]
fn addresses_are_named_once_by_a_pattern_and_contradict_nothing() {
    let said = refusal("[[address]]\n");
    assert!(said.contains("address.match is missing"), "{said}");
    for wrong in ["a*", "", "a.>.b", "/queue/a", "/topic/#"] {
        let said = refusal(&format!("[[address]]\nmatch = {wrong:?}\n"));
        assert!(said.starts_with("f.toml:2: address.match = "), "{said}");
        assert!(said.contains("words with dots between"), "{said}");
    }
    let said = refusal("[[address]]\nmatch = \"a.#\"\n[[address]]\nmatch = \"a.>\"\n");
    assert!(
        said.starts_with("f.toml:3: address \"a.#\" is there twice"),
        "{said}"
    );
    let said = refusal("[address]\nmatch = \"a\"\n");
    assert!(said.contains("[[address]] with two brackets"), "{said}");
    let said = refusal("[[address]]\nmatch = \"a\"\ndead-letter-address = \"x\"\n");
    assert!(
        said.contains("nearest known key: address.dead_letter_address"),
        "{said}"
    );
    let tables: String = (0..=ADDRESS_TABLES_MAX)
        .map(|n| format!("[[address]]\nmatch = \"a{n}\"\n"))
        .collect();
    let said = refusal(&tables);
    assert!(said.contains("more than 1024 [[address]]"), "{said}");
}

#[test]
fn a_key_of_an_address_whose_behaviour_is_not_built_is_refused() {
    for key in SETTINGS {
        let Kind::Setting { is_offered, .. } = key.kind else {
            panic!("{} is no setting", key.path);
        };
        let default = key.default.unwrap();
        let text = format!("[[address]]\nmatch = \"a\"\n{} = {default}\n", key.name());
        if is_offered {
            let shown = load(&text).unwrap().effective_toml();
            assert_eq!(load(&shown).unwrap().config, load(&text).unwrap().config);
        } else {
            let said = refusal(&text);
            let start = format!("f.toml:3: {} is not offered in this release", key.path);
            assert!(said.starts_with(&start), "{said}");
            assert!(said.contains("remedy: remove the line"), "{said}");
        }
    }
}

#[test]
fn flags_win_over_the_file_and_are_named_in_errors() {
    let flags = Overrides {
        data: Some("/d".into()),
        stomp: Some("127.0.0.1:7".into()),
        shards: Some(3),
        allow_anonymous_remote: false,
    };
    let text = "[node]\ndata = \"/file\"\nshards = 1\nname = \"n\"\n";
    let loaded = Loaded::from_text(Path::new("f.toml"), text, &flags).unwrap();
    assert_eq!(loaded.config.node.data, Path::new("/d"));
    assert_eq!(loaded.config.node.shards, 3);
    assert_eq!(loaded.config.listen.stomp.port(), 7);
    let shown = loaded.effective_toml();
    assert!(shown.contains("# command line, --shards"), "{shown}");
    assert!(shown.contains("# f.toml:4"), "{shown}");
    let flags = Overrides {
        stomp: Some("0.0.0.0:1".into()),
        ..Overrides::default()
    };
    let error = Loaded::from_text(Path::new("f.toml"), "", &flags)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("command line, --stomp: "), "{error}");
}

#[test]
fn a_missing_file_and_broken_toml_are_explained() {
    let missing = Path::new("/nonexistent/f.toml");
    let error = Loaded::load(Some(missing), &Overrides::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/nonexistent/f.toml: cannot be read"),
        "{error}"
    );
    let said = refusal("[node]\nname = \n");
    assert!(said.starts_with("f.toml:2: not TOML"), "{said}");
    assert!(Loaded::load(None, &Overrides::default()).is_ok());
}

proptest! {
    /// No text makes the reader panic, and every refusal has a remedy.
    #[test]
    fn any_text_is_answered(
        section in "(\\[(node|journal|limits|user|\\[user\\]|\\[address\\])\\]\n)?",
        lines in "([a-z_]{1,12} = [-0-9a-zA-Z\"\\[\\],. ]{0,12}\n){0,4}",
    ) {
        if let Err(error) = load(&format!("{section}{lines}")) {
            prop_assert!(error.to_string().contains("remedy: "), "{}", error);
        }
    }
}
