//! STOMP 1.2 as a client reads and writes it: nothing shared with the broker's own engine.

/// One frame.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) command: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    /// The first header of a name, which is the one that counts.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Appends a frame; a `content-length` is among the headers if it is wanted.
pub(crate) fn encode(command: &str, headers: &[(&str, &str)], body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
    for (key, value) in headers {
        for (text, end) in [(key, b':'), (value, b'\n')] {
            for byte in text.bytes() {
                match byte {
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    b'\n' => out.extend_from_slice(b"\\n"),
                    b'\r' => out.extend_from_slice(b"\\r"),
                    b':' => out.extend_from_slice(b"\\c"),
                    other => out.push(other),
                }
            }
            out.push(end);
        }
    }
    out.push(b'\n');
    out.extend_from_slice(body);
    out.push(0);
}

/// What the parser saw.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A head is complete; the body may still come.
    Head(Frame),
    /// The frame is complete, up to this byte of the stream.
    Whole(Frame, u64),
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    taken_bytes: u64,
    head: Option<Frame>,
}

impl Parser {
    /// The frame whose body is under way.
    pub(crate) fn under_way(&self) -> Option<&Frame> {
        self.head.as_ref()
    }

    /// Takes the next bytes.
    ///
    /// Errors: what is no STOMP.
    pub(crate) fn push(&mut self, bytes: &[u8], seen: &mut Vec<Seen>) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            if self.head.is_none() {
                let eols = self.bytes[at..].iter().take_while(|b| **b == b'\n').count();
                at += eols;
                let rest = &self.bytes[at..];
                let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") else {
                    break;
                };
                let head = parse_head(&rest[..end])?;
                at += end + 2;
                seen.push(Seen::Head(head.clone()));
                self.head = Some(head);
            }
            let Some(length) = self.body_length(at)? else {
                break;
            };
            let mut frame = self.head.take().expect("parsed above");
            frame.body = self.bytes[at..at + length].to_vec();
            at += length + 1;
            seen.push(Seen::Whole(frame, self.taken_bytes + at as u64));
        }
        self.bytes.drain(..at);
        self.taken_bytes += at as u64;
        Ok(())
    }

    /// Length of the body at `at`, once it is whole.
    fn body_length(&self, at: usize) -> Result<Option<usize>, String> {
        let head = self.head.as_ref().expect("a head came before");
        let rest = &self.bytes[at..];
        let Some(text) = head.header("content-length") else {
            return Ok(rest.iter().position(|byte| *byte == 0));
        };
        let length: usize = text.parse().map_err(|_| format!("length {text:?}"))?;
        match rest.get(length) {
            None => Ok(None),
            Some(0) => Ok(Some(length)),
            Some(other) => Err(format!("byte {other} in place of NUL behind {head:?}")),
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Frame, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("{e} in {bytes:?}"))?;
    let mut lines = text.split('\n');
    let command = lines.next().unwrap_or_default().to_owned();
    if !["CONNECTED", "MESSAGE", "RECEIPT", "ERROR"].contains(&command.as_str()) {
        return Err(format!("command {command:?}"));
    }
    let plain = command == "CONNECTED";
    let mut headers = Vec::new();
    for line in lines {
        let (key, value) = line
            .split_once(':')
            .ok_or_else(|| format!("header {line:?}"))?;
        let decode = |text: &str| {
            if plain {
                Ok(text.to_owned())
            } else {
                unescape(text)
            }
        };
        headers.push((decode(key)?, decode(value)?));
    }
    let body = Vec::new();
    Ok(Frame {
        command,
        headers,
        body,
    })
}

fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        plain.push(match letters.next() {
            Some('\\') => '\\',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('c') => ':',
            other => return Err(format!("escape {other:?} in {text:?}")),
        });
    }
    Ok(plain)
}
