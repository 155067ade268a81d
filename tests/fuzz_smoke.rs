//! The fuzz targets' bodies, run for a fixed number of generated inputs in the normal test
//! command: the same inputs each time. Long runs on changing inputs: `cargo +nightly fuzz run`.

use forebay::protocol::stomp::fuzz;
use forebay::protocol::websocket;
use forebay::queue;
use forebay::selector;

/// Sound sessions to damage; each begins with two bytes that choose cuts and limits.
const SESSIONS: [&[u8]; 6] = [
    b"\x00\x00CONNECT\naccept-version:1.2\nhost:h\nheart-beat:1000,2000\n\n\0\n\
      SEND\ndestination:/queue/a\nreceipt:1\ncontent-length:5\nk:\\c\\n\\r\\\\\n\nhe\0lo\0\n\n\
      SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\n\n\0ACK\nid:1-2\n\n\0\
      NACK\nid:1-3\n\n\0DISCONNECT\nreceipt:2\n\n\0",
    b"\x00\x01STOMP\r\naccept-version:1.0,1.1,1.2\r\nhost:h\r\n\r\n\0\r\n\
      SEND\r\ndestination:/topic/a\r\npersistent:true\r\npriority:9\r\nexpires:0\r\n\r\nbody\0\r\n\
      BEGIN\r\ntransaction:t\r\n\r\n\0COMMIT\r\ntransaction:t\r\n\r\n\0",
    b"\x00\x02CONNECT\naccept-version:1.1\nhost:h\n\n\0\
      SEND\ndestination:a\na\\cb:c\\\\d\ncontent-length:20\n\n01234567890123456789\0\
      ACK\nmessage-id:7\nsubscription:0\n\n\0NACK\nmessage-id:8\nsubscription:0\n\n\0\
      UNSUBSCRIBE\nid:0\n\n\0ABORT\ntransaction:t\n\n\0",
    b"\x00\x03CONNECT\nlogin: u\npasscode:p:q\n\n\0\nSEND\n destination : /queue/a \nk: a\\n:b\n\n\
      hello\0\nSUBSCRIBE\n\
      destination: /queue/foo\nack: client\n\nignored\0ACK\nmessage-id: 7\n\n\0",
    b"\x00\x02CONNECT\naccept-version:1.2\nhost:h\n\n\0SEND\ndestination:a\n\n\
      a body without length that is longer than what is kept whole\0SEND\ndestination:b\n\n\0",
    b"\x00\x00CONNECT\naccept-version:3.0\n\n\0",
];

/// What a blind change would hardly find.
const TOKENS: [&[u8]; 22] = [
    b"\n",
    b"\n\n",
    b"\0",
    b"\r\n",
    b"\r",
    b":",
    b"\\",
    b"\\r",
    b"\\c",
    b"\\t",
    b"\0\n",
    b"content-length:",
    b"content-length:3\n",
    b"destination:a\n",
    b"receipt:r\n",
    b"SEND\n",
    b"DISCONNECT\n\n\0",
    b"9223372036854775808",
    b"-1",
    b"\xff",
    b"\xc3\xa9",
    b"heart-beat:1,1\n",
];

const INPUTS: usize = 200_000;

/// A small generator with a fixed seed: failures repeat.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound.max(1)
    }

    fn octet(&mut self) -> u8 {
        self.below(256) as u8
    }
}

fn damage(input: &mut Vec<u8>, tokens: &[&[u8]], draws: &mut Draws) {
    for _ in 0..draws.below(5) {
        // The first two bytes choose, they are not input.
        let at = 2 + draws.below(input.len() - 2);
        let at = at.min(input.len());
        let end = (at + draws.below(12)).min(input.len());
        match draws.below(6) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => input.extend_from_within(at..end),
            3 => drop(input.splice(at..at, tokens[draws.below(tokens.len())].iter().copied())),
            4 => input.insert(at, draws.octet()),
            _ => {
                let octet = draws.octet();
                if let Some(slot) = input.get_mut(at) {
                    *slot = octet;
                }
            }
        }
    }
}

#[test]
fn stomp_survives_generated_inputs() {
    let mut draws = Draws(0x5eed_f0eb_a700_0001);
    let (mut frames, mut with_frames) = (0, 0);
    for round in 0..INPUTS {
        let mut input = if round % 8 == 0 {
            let len = 2 + draws.below(64);
            (0..len).map(|_| draws.octet()).collect()
        } else {
            SESSIONS[draws.below(SESSIONS.len())].to_vec()
        };
        if let [seed, choice, ..] = input.as_mut_slice() {
            *seed = draws.octet();
            if draws.below(2) == 0 {
                *choice = draws.octet();
            }
        }
        damage(&mut input, &TOKENS, &mut draws);
        let understood = fuzz::exercise(&input);
        frames += understood;
        with_frames += usize::from(understood > 0);
    }
    println!("stomp: {INPUTS} inputs, {with_frames} with sound frames, {frames} frames understood");
    // Inputs that never get past the first line would show nothing.
    assert!(
        with_frames > INPUTS / 2,
        "only {with_frames} inputs had a sound frame"
    );
}

/// Sound selectors to damage; each begins with a byte that seeds the message.
const SELECTORS: [&[u8]; 8] = [
    b"\x00JMSType = 'car' AND color = 'blue' AND weight > 2500",
    b"\x01a NOT BETWEEN -1 AND b * 2.5 OR NOT (c IS NULL) AND d IS NOT NULL",
    b"\x02a IN ('x', 'it''s', '') OR b NOT IN ('text') OR \"my-header\" <> 'a.b'",
    b"\x03a LIKE '%t_x%' AND b NOT LIKE 'a!_%' ESCAPE '!' OR c LIKE '%'",
    b"\x04convert_string_expressions:hyphenated_props:a-b >= 0x1F - -017L / c",
    b"\x05((a = TRUE) <> (b < 1E3)) = c OR - (d + 7.) = + .5f",
    b"\x06no_convert_string_expressions:NOT NOT a OR (b OR c) AND (d AND e)",
    b"\x07a * b / c + 9223372036854775807 - (1 + d) <= -9223372036854775808",
];

/// What a blind change would hardly find in a selector.
const SELECTOR_TOKENS: [&[u8]; 24] = [
    b"NOT ",
    b" AND ",
    b" OR ",
    b" BETWEEN ",
    b" IN ('a')",
    b" LIKE '%a_%'",
    b" ESCAPE '_'",
    b" IS NULL",
    b"(",
    b")",
    b"''",
    b"'",
    b"\"",
    b"<>",
    b"=",
    b"<=",
    b"-",
    b"* ",
    b"/ 0",
    b"0x",
    b"1e3",
    b"TRUE",
    b"\xc3\xa9",
    b"convert_string_expressions:",
];

#[test]
fn selectors_survive_generated_inputs() {
    let mut draws = Draws(0x5eed_f0eb_a700_0002);
    let mut sound = 0;
    for round in 0..INPUTS {
        let mut input: Vec<u8> = if round % 8 == 0 {
            let count = 1 + draws.below(12);
            let words = (0..count).map(|_| SELECTOR_TOKENS[draws.below(SELECTOR_TOKENS.len())]);
            [b"\0a"]
                .into_iter()
                .map(|start| &start[..])
                .chain(words)
                .flatten()
                .copied()
                .collect()
        } else {
            SELECTORS[draws.below(SELECTORS.len())].to_vec()
        };
        input[0] = draws.octet();
        damage(&mut input, &SELECTOR_TOKENS, &mut draws);
        sound += usize::from(selector::fuzz::exercise(&input));
    }
    println!("selector: {INPUTS} inputs, {sound} selectors");
    assert!(sound > INPUTS / 4, "only {sound} inputs were selectors");
}

/// A sound request; it begins with two bytes that choose cuts and limits.
const REQUEST: &[u8] = b"\x00\x00GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: v12.stomp, v11.stomp\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Sound frames: text in fragments with a ping between them, binary, lengths of all forms, Close.
const FRAMES: [&[u8]; 5] = [
    b"\x01\x83\x00\x00\x00\x00a\xc3\xa9\x89\x82\x01\x02\x03\x04hi\x80\x82\x01\x02\x03\x04\x63\x66",
    b"\x82\x85\xff\x00\xff\x00\x00\x01\x02\x03\x04\x8a\x80\x00\x00\x00\x00",
    b"\x82\xfe\x00\x7e\x05\x06\x07\x08",
    b"\x81\x80\x00\x00\x00\x00\x02\x80\x00\x00\x00\x00\x80\x81\x00\x00\x00\x00\xff",
    b"\x88\x82\x00\x00\x00\x00\x03\xe8",
];

/// What a blind change would hardly find in a request or a frame.
const WEBSOCKET_TOKENS: [&[u8]; 16] = [
    b"\r\n\r\n",
    b"\r\n",
    b"GET ",
    b"Upgrade: websocket\r\n",
    b"Sec-WebSocket-Version: 8\r\n",
    b"Sec-WebSocket-Protocol: \xff\r\n",
    b"\x81\x80\x00\x00\x00\x00",
    b"\x01\x82\x00\x00\x00\x00\xe2\x98",
    b"\x80\x81\x00\x00\x00\x00\x83",
    b"\x89\x80\x00\x00\x00\x00",
    b"\x88\x80\x00\x00\x00\x00",
    b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00",
    b"\x82\xfe\x00\x01",
    b"\xff",
    b"\x00",
    b"\xf0\x9f\x98\x80",
];

#[test]
fn websockets_survive_generated_inputs() {
    let mut draws = Draws(0x5eed_f0eb_a700_0003);
    let mut understood = 0;
    for round in 0..INPUTS {
        let begins_with_request = round % 4 == 0;
        let mut input = if begins_with_request {
            REQUEST.to_vec()
        } else {
            vec![0, 1]
        };
        for _ in 0..=draws.below(4) {
            input.extend_from_slice(FRAMES[draws.below(FRAMES.len())]);
        }
        if let [seed, choice, ..] = input.as_mut_slice() {
            *seed = draws.octet();
            *choice |= draws.octet() & 2;
        }
        damage(&mut input, &WEBSOCKET_TOKENS, &mut draws);
        understood += usize::from(websocket::fuzz::exercise(&input) > 0);
    }
    println!("websocket: {INPUTS} inputs, {understood} with payload or control frames");
    assert!(understood > INPUTS / 2, "only {understood} inputs had any");
}

const STORIES: usize = 20_000;

/// Seeds of checkpoints lie in the tree: records of one, and stories of two bytes for each step.
#[allow(clippy::disallowed_methods, reason = "a test reads its seeds")]
fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/checkpoint");
    let entries = std::fs::read_dir(folder).expect("seeds lie in the tree");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "hardly any seeds");
    let read = |path: &std::path::PathBuf| std::fs::read(path).expect("reads");
    paths.iter().map(read).collect()
}

#[test]
fn checkpoints_survive_generated_inputs() {
    let seeds = checkpoint_seeds();
    let mut draws = Draws(0x5eed_f0eb_a700_0004);
    let (mut records, mut checkpoints) = (0, 0);
    let mut take = |input: &[u8]| {
        records += usize::from(queue::fuzz::exercise_record(input));
        checkpoints += queue::fuzz::exercise_story(input);
    };
    seeds.iter().for_each(|seed| take(seed));
    for round in 0..STORIES {
        let mut input = if round % 4 == 0 {
            let len = 4 + draws.below(500);
            (0..len).map(|_| draws.octet()).collect()
        } else {
            seeds[draws.below(seeds.len())].clone()
        };
        damage(&mut input, &[b"\x0b\x00", b"\x0a\x00"], &mut draws);
        take(&input);
    }
    println!("checkpoint: {STORIES} inputs, {records} records, {checkpoints} checkpoints replayed");
    assert!(records > STORIES / 30, "only {records} records");
    assert!(checkpoints > 2 * STORIES, "only {checkpoints} checkpoints");
}
