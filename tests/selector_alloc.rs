//! Asking a selector allocates nothing, whatever its terms and the message's values are.

#[path = "alloc/counting.rs"]
mod counting;

use std::hint::black_box;

use counting::{Counting, count_on, counted, set_counting};
use forebay::frontend::{Header, Message as StoredMessage};
use forebay::selector::{Properties, Selector, Truth, Value};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Message<'a>(&'a [(&'a str, Value<'a>)]);

impl Properties for Message<'_> {
    fn get(&self, name: &str) -> Value<'_> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map_or(Value::Null, |(_, value)| *value)
    }
}

#[test]
fn an_evaluation_allocates_nothing() {
    let selectors = [
        "JMSType = 'car' AND color = 'blue' AND weight > 2500",
        "weight BETWEEN 1 AND 5000 OR weight NOT BETWEEN price AND 9",
        "color IN ('red', 'green', 'blue') AND JMSType NOT IN ('bus')",
        "color LIKE 'b%' AND long LIKE '%a_b%x%c' AND long NOT LIKE '%a%a%a%a%b' ESCAPE '!'",
        "missing IS NULL AND color IS NOT NULL AND NOT missing = 1",
        "-weight * 2 / price + 1 < 0 OR weight / 0 = 1",
        "isNew AND (weight > 1) = TRUE AND isNew <> FALSE",
        "convert_string_expressions:weight = 2501.0 OR color = 1",
    ]
    .map(|text| Selector::parse(text).expect(text));
    let long = "a".repeat(2000);
    let typed = [
        ("JMSType", Value::Text("car")),
        ("color", Value::Text("blue")),
        ("weight", Value::Int(2501)),
        ("price", Value::Float(9.5)),
        ("isNew", Value::Bool(true)),
        ("long", Value::Text(&long)),
    ];
    let untyped = [
        ("JMSType", Value::Untyped("car")),
        ("color", Value::Untyped("blue")),
        ("weight", Value::Untyped("2501")),
        ("price", Value::Untyped("9.5e0")),
        ("isNew", Value::Untyped("True")),
        ("long", Value::Untyped(&long)),
    ];
    let messages = [Message(&typed), Message(&untyped), Message(&[])];
    let mut truths = [0; 3];
    count_on(&[nix::unistd::gettid().as_raw()]);
    set_counting(true);
    for _ in 0..1000 {
        for selector in &selectors {
            for message in &messages {
                truths[black_box(selector).evaluate(black_box(message)) as usize] += 1;
            }
        }
    }
    set_counting(false);
    let (count, bytes) = counted();
    println!("{count} allocations of {bytes} bytes, answers {truths:?}");
    assert_eq!(count, 0, "an evaluation allocates");
    assert!(truths[Truth::True as usize] > 0 && truths[Truth::Unknown as usize] > 0);
    // Not a test of its own: what is counted is the same for all threads.
    asking_a_stored_message_allocates_only_for_escapes();
}

/// A stored message of STOMP, with a lookup of each kind: its head is cut, asked and thrown away.
fn asking_a_stored_message_allocates_only_for_escapes() {
    let selectors = [
        "tenant = 'acme' AND weight > 2500 AND \"my-key\" = 'x'",
        "JMSPriority = 4 AND JMSMessageID LIKE '0-%' AND JMSType = 'car' AND last = 'z'",
        "JMSTimestamp > 0 AND missing IS NULL AND JMSDeliveryMode = 'PERSISTENT'",
    ]
    .map(|text| Selector::parse(text).expect(text));
    let mut head = String::from("tenant:acme\nweight:2501\nmy-key:x\ntype:car\nodd\\ckey:a\\cb\n");
    (0..100).for_each(|number| head.push_str(&format!("h{number}:{number}\n")));
    head.push_str("last:z\n");
    let header = Header {
        priority: 4,
        timestamp_unix_ms: 1,
        is_persistent: true,
        ..Header::default()
    };
    let escaped = Selector::parse("\"odd:key\" = 'a:b'").expect("it is sound");
    set_counting(true);
    for _ in 0..100 {
        let message = StoredMessage::new(header, 1, black_box(head.as_bytes()));
        for selector in &selectors {
            assert!(selector.matches(&message));
        }
    }
    set_counting(false);
    let (count, _) = counted();
    assert_eq!(count, 0, "nothing that is asked for has escapes");
    let message = StoredMessage::new(header, 1, head.as_bytes());
    assert!(escaped.matches(&message));
}
