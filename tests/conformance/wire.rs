//! Frames of a server as a client reads them: written apart from the engine, to judge it.

use crate::transcript::Variables;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) command: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Takes the first whole frame off `buffer`, line ends before it included.
pub(crate) fn take_frame(buffer: &mut Vec<u8>) -> Option<Frame> {
    let start = buffer
        .iter()
        .position(|octet| *octet != b'\n')
        .unwrap_or(buffer.len());
    buffer.drain(..start);
    let head_len = buffer.windows(2).position(|pair| pair == b"\n\n")? + 2;
    let head = std::str::from_utf8(&buffer[..head_len - 2]).expect("a head is UTF-8");
    let mut lines = head.split('\n');
    let command = lines.next().unwrap().to_owned();
    let headers: Vec<_> = lines
        .map(|line| {
            line.split_once(':')
                .unwrap_or_else(|| panic!("no colon in {line:?}"))
        })
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let after = &buffer[head_len..];
    let length = headers.iter().find(|(key, _)| key == "content-length");
    let body_len = match length {
        Some((_, length)) => length.parse().unwrap(),
        None => after.iter().position(|octet| *octet == 0)?,
    };
    let nul = *after.get(body_len)?;
    assert_eq!(nul, 0, "{command} does not end with NUL");
    let body = after[..body_len].to_vec();
    buffer.drain(..head_len + body_len + 1);
    Some(Frame {
        command,
        headers,
        body,
    })
}

impl Frame {
    /// Panics with both sides when the frame is not the expected one.
    pub(crate) fn check(&self, place: &str, expected: &[String], variables: &mut Variables) {
        let blank = expected.iter().position(String::is_empty);
        let blank = blank.unwrap_or_else(|| panic!("{place}: no empty line"));
        let (head, body) = (&expected[..blank], expected[blank + 1..].join("\n"));
        let complain =
            |what: &str| panic!("{place}: expected {what} of {expected:#?}, got {self:#?}");
        if head[0] != self.command {
            complain(&head[0]);
        }
        for line in &head[1..] {
            if let Some(name) = line.strip_prefix('!') {
                if self.value(name).is_some() {
                    complain(line);
                }
                continue;
            }
            let (name, value) = line
                .split_once(':')
                .expect("an expected header has a colon");
            let is_there = self
                .value(name)
                .is_some_and(|actual| variables.matches(value, actual.as_bytes()));
            if !is_there {
                complain(line);
            }
        }
        let body = body
            .strip_suffix("^@")
            .unwrap_or_else(|| panic!("{place}: no ^@ at the end"));
        if !variables.matches(body, &self.body) {
            complain("the body");
        }
    }

    /// STOMP 1.2 "Repeated Header Entries": the first counts.
    fn value(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}
