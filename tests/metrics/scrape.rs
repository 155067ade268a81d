//! A reader of the text format, strict: what it does not understand fails the test.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;

/// One scrape.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    /// Name to type.
    pub(super) types: BTreeMap<String, String>,
    /// Name with labels as written, to value.
    pub(super) samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Through the admin socket.
    pub(super) fn of(data: &Path) -> Self {
        let mut stream = UnixStream::connect(data.join("admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (status, text) = ask(&mut stream, "GET /metrics");
        assert_eq!(status, 200, "{text}");
        Self::parse(&text)
    }

    /// Over the network: the status, and what it says if that is 200.
    pub(super) fn over(address: &str, request: &str) -> (u16, Self) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (status, text) = ask(&mut stream, request);
        let scrape = if status == 200 {
            Self::parse(&text)
        } else {
            Self::default()
        };
        (status, scrape)
    }

    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# TYPE ") {
                let (name, kind) = line.split_once(' ').unwrap();
                let before = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} twice");
            } else if line.starts_with("# HELP ") {
                assert!(line.split(' ').count() > 3, "{line} helps nobody");
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                let before = scrape.samples.insert(name.to_owned(), value);
                assert_eq!(before, None, "{name} twice");
                let family = scrape.family_of(name);
                assert!(scrape.types.contains_key(&family), "{line} has no type");
            }
        }
        scrape
    }

    /// The name that a sample belongs to.
    pub(super) fn family_of(&self, sample: &str) -> String {
        let name = sample.split('{').next().unwrap();
        let parts = ["_bucket", "_sum", "_count"].iter();
        let of_histogram = parts.filter_map(|part| name.strip_suffix(part));
        let mut histograms = of_histogram
            .filter(|name| self.types.get(*name).map(String::as_str) == Some("histogram"));
        histograms.next().unwrap_or(name).to_owned()
    }

    /// The sample with exactly this name and labels.
    pub(super) fn get(&self, name: &str) -> f64 {
        let found = self.samples.get(name);
        *found.unwrap_or_else(|| panic!("no {name} in {:#?}", self.samples.keys()))
    }

    /// Sum of all samples of a name.
    pub(super) fn sum(&self, name: &str) -> f64 {
        let labelled = format!("{name}{{");
        let of_name = |sample: &&String| *sample == name || sample.starts_with(&labelled);
        let samples = self.samples.keys().filter(of_name);
        samples.map(|sample| self.samples[sample]).sum()
    }
}

fn ask(stream: &mut (impl Read + Write), request: &str) -> (u16, String) {
    let request = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}
