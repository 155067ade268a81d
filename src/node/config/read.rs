//! From TOML and flags to the fields of the configuration, by the table of keys.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address::{AddressSettings, MATCH, SETTINGS};
use super::keys::{KEYS, Key, Kind};
use super::setting::{has_prefix, number, optional_size};
use super::size::parse_size;
use super::{Config, ConfigError, Loaded, Overrides, Pin, Place, User};
use crate::limits::{ADDRESS_SIZE_MAX_BYTES, ADDRESS_TABLES_MAX};
use crate::pattern::Pattern;
use crate::shard::{DiskFull, PolicySettings};

/// Longest login or passcode in bytes.
const USER_TEXT_SIZE_MAX: usize = 255;

/// A value as it was given, whether in the file or by a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Text(String),
    Integer(i128),
    /// A number with a point, as it is written.
    Fraction(String),
    Flag(bool),
    List(Vec<Self>),
    /// Something no key takes, by the name of its type.
    Other(&'static str),
}

/// The file under the reader: turns offsets into lines.
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Place::File {
            file: self.file.to_path_buf(),
            line,
        }
    }
}

/// Reads all keys of the file, in the order they are written.
pub(super) fn read_file(loaded: &mut Loaded, file: &Path, text: &str) -> Result<(), ConfigError> {
    let source = Source { file, text };
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        place: source.place(&error.span().unwrap_or(0..0)),
        problem: error.message().to_string(),
    })?;
    for (name, value) in in_order(document.get_ref()) {
        let section = name.get_ref().as_ref();
        if section == "user" {
            read_users(loaded, &source, value)?;
        } else if section == "address" {
            read_addresses(loaded, &source, value)?;
        } else if let DeValue::Table(table) = value.get_ref() {
            read_section(loaded, &source, section, name.span(), table)?;
        } else {
            return Err(unknown(&source, &name.span(), section.to_string()));
        }
    }
    Ok(())
}

/// Reads one `[section]`.
fn read_section(
    loaded: &mut Loaded,
    source: &Source<'_>,
    section: &str,
    span: Range<usize>,
    table: &DeTable<'_>,
) -> Result<(), ConfigError> {
    if !KEYS.iter().any(|key| key.section() == section) {
        return Err(unknown(source, &span, section.to_string()));
    }
    for (name, value) in in_order(table) {
        let path = format!("{section}.{}", name.get_ref());
        let Some(key) = KEYS.iter().find(|key| key.path == path) else {
            return Err(unknown(source, &name.span(), path));
        };
        let place = source.place(&name.span());
        apply(&mut loaded.config, key, &given(value.get_ref()), &place)?;
        loaded.places.insert(key.path, place);
    }
    Ok(())
}

/// Reads every `[[user]]`.
fn read_users(
    loaded: &mut Loaded,
    source: &Source<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Result<(), ConfigError> {
    let allowed = "[[user]] with two brackets, then name and password";
    for (table, span) in list_of_tables(source, value, "user", allowed)? {
        let user = read_user(source, table, &span)?;
        if loaded
            .config
            .users
            .iter()
            .any(|other| other.name == user.name)
        {
            return Err(ConfigError::Duplicate {
                place: source.place(&span),
                table: "user",
                name: user.name,
            });
        }
        loaded.config.users.push(user);
    }
    Ok(())
}

/// Takes a list of tables apart: each with where it is written.
fn list_of_tables<'t, 'i>(
    source: &Source<'_>,
    value: &'t Spanned<DeValue<'i>>,
    key: &'static str,
    allowed: &str,
) -> Result<Vec<(&'t DeTable<'i>, Range<usize>)>, ConfigError> {
    let wrong = |span: &Range<usize>| ConfigError::WrongValue {
        place: source.place(span),
        key,
        found: "not a list of tables".into(),
        allowed: allowed.into(),
        default: None,
    };
    let DeValue::Array(entries) = value.get_ref() else {
        return Err(wrong(&value.span()));
    };
    let tables = entries.iter().map(|entry| match entry.get_ref() {
        DeValue::Table(table) => Ok((table, entry.span())),
        _ => Err(wrong(&entry.span())),
    });
    tables.collect()
}

/// Reads every `[[address]]`.
fn read_addresses(
    loaded: &mut Loaded,
    source: &Source<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Result<(), ConfigError> {
    let allowed = "[[address]] with two brackets, then match and what to set";
    for (table, span) in list_of_tables(source, value, "address", allowed)? {
        let address = read_address(source, table, &span)?;
        let others = &mut loaded.config.addresses;
        let place = source.place(&span);
        let table = "address";
        if others.iter().any(|one| one.pattern == address.pattern) {
            let name = address.pattern.to_string();
            return Err(ConfigError::Duplicate { place, table, name });
        }
        if others.len() >= ADDRESS_TABLES_MAX as usize {
            let max = ADDRESS_TABLES_MAX;
            return Err(ConfigError::TooMany { place, table, max });
        }
        others.push(address);
    }
    Ok(())
}

/// Reads one `[[address]]`.
fn read_address(
    source: &Source<'_>,
    table: &DeTable<'_>,
    span: &Range<usize>,
) -> Result<AddressSettings, ConfigError> {
    let (mut pattern, mut settings) = (None, PolicySettings::default());
    for (name, value) in in_order(table) {
        let path = format!("address.{}", name.get_ref());
        let place = source.place(&name.span());
        let Some(key) = address_keys().find(|key| key.path == path) else {
            return Err(unknown(source, &name.span(), path));
        };
        let value = given(value.get_ref());
        let is_read = match key.kind {
            Kind::Setting {
                is_offered: false, ..
            } => {
                let key = key.path;
                return Err(ConfigError::NotOffered { place, key });
            }
            Kind::Setting { setting, .. } => setting.read(&mut settings, &value).is_some(),
            _ => {
                pattern = read_pattern(&value);
                pattern.is_some()
            }
        };
        if !is_read {
            return Err(wrong_value(key, &value, &place));
        }
    }
    let pattern = pattern.ok_or_else(|| ConfigError::Missing {
        place: source.place(span),
        key: MATCH.path,
        allowed: MATCH.allowed(),
    })?;
    let address = AddressSettings { pattern, settings };
    match address.contradiction() {
        None => Ok(address),
        Some((key, other)) => Err(ConfigError::Relation {
            place: source.place(span),
            key,
            problem: format!("is more than {other} of the same table"),
            remedy: format!("write at most the value of {other}"),
        }),
    }
}

/// Reads a `match`. One that could match nothing is refused: addresses have no prefix.
fn read_pattern(value: &Given) -> Option<Pattern> {
    let Given::Text(text) = value else {
        return None;
    };
    let is_fit = text.len() as u64 <= ADDRESS_SIZE_MAX_BYTES && !has_prefix(text);
    is_fit.then(|| Pattern::parse(text).ok()).flatten()
}

/// The keys of an `[[address]]`.
fn address_keys() -> impl Iterator<Item = &'static Key> {
    core::iter::once(MATCH).chain(SETTINGS)
}

/// Every key of the two tables.
pub(super) fn all_keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().chain(address_keys())
}

/// Reads one `[[user]]`.
fn read_user(
    source: &Source<'_>,
    table: &DeTable<'_>,
    span: &Range<usize>,
) -> Result<User, ConfigError> {
    let mut user = User::default();
    for (name, value) in in_order(table) {
        let path = format!("user.{}", name.get_ref());
        let Some((key, slot)) = user_keys().find(|(key, _)| key.path == path) else {
            return Err(unknown(source, &name.span(), path));
        };
        match given(value.get_ref()) {
            Given::Text(text) if (1..=USER_TEXT_SIZE_MAX).contains(&text.len()) => {
                *slot(&mut user) = text;
            }
            _ => {
                return Err(ConfigError::WrongValue {
                    place: source.place(&name.span()),
                    key: key.path,
                    found: "(not shown)".into(),
                    allowed: key.allowed(),
                    default: key.default,
                });
            }
        }
    }
    for (key, slot) in user_keys() {
        if slot(&mut user).is_empty() {
            let place = source.place(span);
            return Err(ConfigError::Missing {
                place,
                key: key.path,
                allowed: key.allowed(),
            });
        }
    }
    Ok(user)
}

/// The keys of a `[[user]]` with the field each fills.
fn user_keys() -> impl Iterator<Item = (&'static Key, fn(&mut User) -> &mut String)> {
    KEYS.iter().filter_map(|key| match key.kind {
        Kind::UserText { slot } => Some((key, slot)),
        _ => None,
    })
}

/// Lays the flags over what the file said.
pub(super) fn read_flags(loaded: &mut Loaded, flags: &Overrides) -> Result<(), ConfigError> {
    let data = flags
        .data
        .as_ref()
        .map(|path| Given::Text(path.display().to_string()));
    let given = [
        ("node.data", "--data", data),
        (
            "listen.stomp",
            "--stomp",
            flags.stomp.clone().map(Given::Text),
        ),
        (
            "node.shards",
            "--shards",
            flags.shards.map(|count| Given::Integer(count.into())),
        ),
        (
            "listen.allow_anonymous_remote",
            "--allow-anonymous-remote",
            flags.allow_anonymous_remote.then_some(Given::Flag(true)),
        ),
    ];
    for (path, flag, value) in given {
        let Some(value) = value else { continue };
        let key = key_named(path);
        let place = Place::Flag { flag };
        apply(&mut loaded.config, key, &value, &place)?;
        loaded.places.insert(key.path, place);
    }
    if let Some(path) = &flags.data {
        // Through text above for the check, as it is here: a path need not be UTF-8.
        loaded.config.node.data.clone_from(path);
    }
    Ok(())
}

/// Writes a key's default into the configuration.
///
/// Panics: never; the defaults of the table are constants and a test applies each of them.
pub(super) fn apply_default(config: &mut Config, key: &'static Key) {
    let Some(text) = key.default else { return };
    apply(config, key, &value_of(text), &Place::Default)
        .expect("defaults of the table are within their range: tested");
}

/// Finds a key that the code names itself.
fn key_named(path: &'static str) -> &'static Key {
    KEYS.iter()
        .find(|key| key.path == path)
        .expect("the code names only keys of the table")
}

/// Puts a value into the field of its key, or says what is allowed there.
fn apply(
    config: &mut Config,
    key: &'static Key,
    value: &Given,
    place: &Place,
) -> Result<(), ConfigError> {
    try_apply(config, key, value).ok_or_else(|| wrong_value(key, value, place))
}

fn wrong_value(key: &Key, value: &Given, place: &Place) -> ConfigError {
    ConfigError::WrongValue {
        place: place.clone(),
        key: key.path,
        found: show(value),
        allowed: key.allowed(),
        default: key.default,
    }
}

/// Puts a value into its field; `None` when type or range is wrong, and nothing is changed.
fn try_apply(config: &mut Config, key: &Key, value: &Given) -> Option<()> {
    match key.kind {
        Kind::Name { slot } => *slot(config) = name(value)?,
        Kind::Folder { slot } => *slot(config) = folder(value)?,
        Kind::Flag { slot } => {
            let Given::Flag(flag) = value else {
                return None;
            };
            *slot(config) = *flag;
        }
        Kind::Integer { least, most, slot } => *slot(config) = integer(value, least, most)?,
        Kind::OptionalCount { most, slot } => *slot(config) = number(value, 1, most, true)?,
        Kind::OptionalSize { slot } => *slot(config) = optional_size(value)?,
        Kind::Pair { least, most, slot } => {
            let Given::List(list) = value else {
                return None;
            };
            let [first, second] = list.as_slice() else {
                return None;
            };
            *slot(config) = [integer(first, least, most)?, integer(second, least, most)?];
        }
        Kind::Size {
            least,
            most,
            multiple,
            slot,
        } => {
            *slot(config) = size(value, least, most, multiple)?;
        }
        Kind::Rate { least, most, slot } => *slot(config) = size(value, least, most, 1)?,
        Kind::Address { slot } => *slot(config) = address(value)?,
        Kind::OptionalAddress { slot } => {
            let is_off = matches!(value, Given::Text(text) if text == "off");
            *slot(config) = if is_off { None } else { Some(address(value)?) };
        }
        Kind::Placement { slot } => *slot(config) = pin(value)?,
        Kind::DiskFull { slot } => *slot(config) = disk_full(value)?,
        Kind::UserText { .. } | Kind::Pattern | Kind::Setting { .. } => return None,
    }
    Some(())
}

fn name(value: &Given) -> Option<String> {
    let Given::Text(text) = value else {
        return None;
    };
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    fits.then(|| text.clone())
}

fn folder(value: &Given) -> Option<PathBuf> {
    let Given::Text(text) = value else {
        return None;
    };
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn integer(value: &Given, least: u32, most: u32) -> Option<u32> {
    let Given::Integer(number) = value else {
        return None;
    };
    u32::try_from(*number)
        .ok()
        .filter(|number| (least..=most).contains(number))
}

fn size(value: &Given, least: u64, most: u64, multiple: u64) -> Option<u64> {
    let bytes = match value {
        Given::Text(text) => parse_size(text)?,
        Given::Integer(number) => u64::try_from(*number).ok()?,
        _ => return None,
    };
    ((least..=most).contains(&bytes) && bytes.is_multiple_of(multiple)).then_some(bytes)
}

fn address(value: &Given) -> Option<SocketAddr> {
    let Given::Text(text) = value else {
        return None;
    };
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((
            Ipv4Addr::LOCALHOST,
            port.parse::<u16>().ok()?,
        ))),
        None => text.parse().ok(),
    }
}

fn pin(value: &Given) -> Option<Pin> {
    match value {
        Given::Text(text) if text == "auto" => Some(Pin::Auto),
        Given::Text(text) if text == "off" => Some(Pin::Off),
        Given::List(list) if !list.is_empty() => {
            let cpus: Option<Vec<u32>> = list.iter().map(|cpu| integer(cpu, 0, 4095)).collect();
            let cpus = cpus?;
            let mut sorted = cpus.clone();
            sorted.sort_unstable();
            sorted.dedup();
            (sorted.len() == cpus.len()).then_some(Pin::Cpus(cpus))
        }
        _ => None,
    }
}

fn disk_full(value: &Given) -> Option<DiskFull> {
    match value {
        Given::Text(text) if text == "block" => Some(DiskFull::Block),
        Given::Text(text) if text == "fail" => Some(DiskFull::Fail),
        _ => None,
    }
}

/// Reads a value that the code writes itself.
///
/// Panics: if it is no TOML (our own mistake).
pub(super) fn value_of(text: &str) -> Given {
    let value = DeValue::parse(text).expect("values that the code writes are TOML: tested");
    given(value.get_ref())
}

/// Takes what keys can use out of a TOML value.
fn given(value: &DeValue<'_>) -> Given {
    match value {
        DeValue::String(text) => Given::Text(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Given::Other("an integer that is too long"), Given::Integer),
        DeValue::Boolean(flag) => Given::Flag(*flag),
        DeValue::Array(list) => {
            Given::List(list.iter().map(|entry| given(entry.get_ref())).collect())
        }
        DeValue::Float(number) => Given::Fraction(number.as_str().to_string()),
        DeValue::Datetime(_) => Given::Other("a date"),
        DeValue::Table(_) => Given::Other("a table"),
    }
}

/// Shows a value as it may have been written.
fn show(value: &Given) -> String {
    match value {
        Given::Text(text) => format!("{text:?}"),
        Given::Integer(number) => number.to_string(),
        Given::Fraction(text) => format!("{text}, a fraction,"),
        Given::Flag(flag) => flag.to_string(),
        Given::List(list) => {
            let shown: Vec<String> = list.iter().map(show).collect();
            format!("[{}]", shown.join(", "))
        }
        Given::Other(kind) => (*kind).to_string(),
    }
}

/// Entries of a table in the order they are written: the first mistake is reported first.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(
    &'t Spanned<std::borrow::Cow<'i, str>>,
    &'t Spanned<DeValue<'i>>,
)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn unknown(source: &Source<'_>, span: &Range<usize>, key: String) -> ConfigError {
    let nearest = nearest_key(&key);
    ConfigError::UnknownKey {
        place: source.place(span),
        key,
        nearest,
    }
}

/// Finds the known key that looks most like a wrong one: in full, or by its last part (the right
/// name in the wrong section).
pub(super) fn nearest_key(wrong: &str) -> Option<&'static str> {
    let last = wrong.rsplit('.').next().unwrap_or(wrong);
    let score = |key: &Key| distance(wrong, key.path).min(distance(last, key.name()) + 1);
    let best = all_keys().min_by_key(|key| score(key))?;
    (score(best) <= 2 + last.len() / 4).then_some(best.path)
}

/// Counts the single-letter edits from one word to another.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
