//! The binary against a broker in memory: what it measures, and what it must not overlook.

mod broker;

use broker::{Broker, Faults};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// The binary, ended after a minute: a run that never finds its end is a failure, not a wait.
fn binary() -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_forebay-bench")]);
    command
}

fn bench(broker: &Broker, options: &str) -> Output {
    binary()
        .args([
            "stomp",
            "--quiet",
            "--json",
            "--addr",
            &broker.address.to_string(),
        ])
        .args(options.split_whitespace())
        .output()
        .expect("the binary runs")
}

/// Runs, expects this exit status, and gives the report and standard error.
fn run(broker: &Broker, options: &str, status: i32) -> (Value, String) {
    let output = bench(broker, options);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{options}: {stderr}");
    (
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        stderr,
    )
}

fn number(report: &Value, path: &str) -> f64 {
    report
        .pointer(path)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{path} in {report}"))
}

#[test]
fn a_sound_broker_passes_in_every_ack_mode_and_shape() {
    let shapes = [
        "--messages 3000 --producers 3 --window 8",
        "--messages 3000 --producers 4 --queues 2 --consumers 5 --ack client --ack-every 7",
        "--messages 2000 --ack client-individual --ack-receipts --window 50 --size 999 --body random",
        "--messages 500 --rate 2000 --producers 3 --ack client --ack-receipts --no-persistent",
        "--seconds 0.4 --warmup 0.2 --producers 2 --window 4 --size 52",
    ];
    for shape in shapes {
        let broker = Broker::start(Faults::default());
        let (report, _) = run(&broker, shape, 0);
        let sent = number(&report, "/ledger/sent");
        assert!(sent > 100.0, "{shape}: {report}");
        assert_eq!(number(&report, "/ledger/confirmed"), sent, "{shape}");
        assert_eq!(number(&report, "/ledger/received"), sent, "{shape}");
        assert_eq!(broker.waiting(), 0, "{shape}: everything was acknowledged");
        let warmup = if shape.contains("--warmup") { 1.0 } else { 0.0 };
        for histogram in ["/confirm_us", "/end_to_end_us"] {
            let count = number(&report, &format!("{histogram}/count"));
            assert!(
                count == sent || (warmup > 0.0 && count < sent && count > 0.0),
                "{report}"
            );
        }
    }
}

#[test]
fn headers_reach_the_broker() {
    let broker = Broker::start(Faults::default());
    let options = "--messages 5 --prefetch 33 --ack client --login ann --passcode secret \
                   --vhost v --subscribe-header a:b";
    run(&broker, options, 0);
    let heads = broker.heads();
    let subscribe = heads
        .iter()
        .find(|head| head.starts_with("SUBSCRIBE"))
        .expect("subscribed");
    for line in [
        "activemq.prefetchSize:33",
        "ack:client",
        "a:b",
        "destination:/queue/bench-0",
    ] {
        assert!(
            subscribe.lines().any(|found| found == line),
            "{line} in {subscribe}"
        );
    }
    let connect = heads
        .iter()
        .find(|head| head.starts_with("CONNECT"))
        .expect("connected");
    for line in [
        "login:ann",
        "passcode:secret",
        "host:v",
        "accept-version:1.2",
    ] {
        assert!(
            connect.lines().any(|found| found == line),
            "{line} in {connect}"
        );
    }
}

#[test]
fn each_broken_promise_is_exit_one_by_name() {
    let at = Some(60);
    let cases = [
        (
            Faults {
                drop_at: at,
                ..Faults::default()
            },
            "1 confirmed but not received",
        ),
        (
            Faults {
                duplicate_at: at,
                ..Faults::default()
            },
            "1 received twice without",
        ),
        (
            Faults {
                swap_at: at,
                ..Faults::default()
            },
            "1 out of order",
        ),
        (
            Faults {
                corrupt_at: at,
                ..Faults::default()
            },
            "1 received with another body",
        ),
        (
            Faults {
                lose_receipt_at: at,
                ..Faults::default()
            },
            "1 sent but never confirmed",
        ),
        (
            Faults {
                error_at: at,
                ..Faults::default()
            },
            "ERROR: disk on fire run",
        ),
    ];
    for (faults, expected) in cases {
        let broker = Broker::start(faults);
        let (_, stderr) = run(&broker, "--messages 200 --window 10 --idle 0.5", 1);
        assert!(stderr.contains(expected), "{expected}: {stderr}");
        let others = stderr
            .lines()
            .filter(|line| !line.contains(expected))
            .collect::<Vec<_>>();
        let is_silence = |line: &&str| line.contains("no answer for 0.5 s");
        assert!(others.iter().all(is_silence), "{expected}: {others:?}");
    }
}

#[test]
fn a_redelivery_with_the_flag_is_counted_and_forgiven() {
    let broker = Broker::start(Faults {
        redeliver_at: Some(20),
        ..Faults::default()
    });
    let (report, _) = run(&broker, "--messages 100", 0);
    assert_eq!(number(&report, "/ledger/redelivered"), 1.0);
}

#[test]
fn produce_then_consume_drains_what_is_there_and_judges_it() {
    let broker = Broker::start(Faults {
        duplicate_at: Some(7),
        ..Faults::default()
    });
    run(
        &broker,
        "--mode produce --messages 400 --window 20 --producers 2",
        0,
    );
    assert_eq!(broker.waiting(), 401);
    let (report, stderr) = run(&broker, "--mode consume --ack client --idle 0.3", 1);
    assert!(stderr.contains("1 received twice"), "{stderr}");
    assert_eq!(number(&report, "/ledger/received"), 400.0);
    assert_eq!(broker.waiting(), 0);
    let (report, _) = run(&broker, "--mode consume --idle 0.3", 0);
    assert_eq!(number(&report, "/ledger/received"), 0.0);
}

/// No coordinated omission: 1000 messages per second for two seconds, and the broker stands still
/// for 200 ms. The 200 messages due meanwhile waited 200, 199, .. 0 ms, so a tenth of all waited,
/// and 1 % waited more than about 180 ms. A closed loop would have noticed one slow message.
#[test]
fn an_open_loop_shows_a_stall_to_every_message_that_was_due() {
    let stall_at = Some((1000, Duration::from_millis(200)));
    let broker = Broker::start(Faults {
        stall_at,
        ..Faults::default()
    });
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("stall.hgrm");
    let hgrm = path.to_str().expect("text");
    let options = format!("--rate 1000 --seconds 2 --warmup 0 --hgrm {hgrm}");
    let (report, _) = run(&broker, &options, 0);
    for side in ["/confirm_us", "/end_to_end_us"] {
        assert_eq!(number(&report, &format!("{side}/count")), 2000.0);
        let p99 = number(&report, &format!("{side}/p99"));
        // Lower bounds only: a busy machine adds stalls of its own, never takes this one away.
        assert!(p99 > 150_000.0, "{side} p99 {p99} us");
    }
    for file in [
        path.clone(),
        Path::new(&format!("{hgrm}.end-to-end")).to_path_buf(),
    ] {
        let waited = over(&file, 20_000.0);
        assert!(waited > 140.0, "{waited} messages over 20 ms");
    }

    let broker = Broker::start(Faults {
        stall_at,
        ..Faults::default()
    });
    let options = "--mode produce --messages 2000 --hgrm";
    run(&broker, &format!("{options} {hgrm}"), 0);
    let waited = over(&path, 100_000.0);
    assert!(
        (1.0..50.0).contains(&waited),
        "a closed loop hides it: {waited} over 100 ms"
    );
}

/// Reads from a distribution how many messages took longer than `limit_us`.
fn over(file: &Path, limit_us: f64) -> f64 {
    let text = std::fs::read_to_string(file).expect("written");
    let rows = text.lines().filter_map(|line| {
        let words: Vec<f64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        (words.len() >= 3).then(|| (words[0], words[2]))
    });
    let rows: Vec<(f64, f64)> = rows.collect();
    let total = rows.last().expect("rows").1;
    let under = rows
        .iter()
        .filter(|row| row.0 <= limit_us)
        .map(|row| row.1)
        .fold(0.0, f64::max);
    total - under
}

#[test]
fn the_rate_of_an_open_loop_is_kept() {
    let broker = Broker::start(Faults::default());
    let (report, _) = run(
        &broker,
        "--rate 3000 --producers 7 --seconds 1 --warmup 0.2",
        0,
    );
    let rate = number(&report, "/confirmed_per_s");
    assert!((2800.0..3100.0).contains(&rate), "{rate}");
    // 0.2 s of warm-up and 1 s: exactly the messages that were due, none skipped.
    assert_eq!(number(&report, "/ledger/sent"), 3600.0);
}

#[test]
fn who_cannot_be_measured_is_exit_two() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    let output = binary()
        .args(["stomp", "--addr", &gone.to_string()])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("refused"),
        "{output:?}"
    );

    let broker = Broker::start(Faults {
        version: Some("1.1"),
        ..Faults::default()
    });
    let (_, stderr) = run(&broker, "--messages 1", 2);
    assert!(stderr.contains("not 1.2"), "{stderr}");

    let broker = Broker::start(Faults::default());
    for wrong in [
        "--size 51",
        "--rate 10 --window 5",
        "--queues 3 --consumers 2",
        "--queues 3",
        "--mode consume --rate 5",
        "--server-pid 4194305",
        "--pin 9999",
        "--count-syscalls",
        "--send-header nocolon",
    ] {
        let (_, stderr) = run(&broker, wrong, 2);
        assert!(!stderr.is_empty(), "{wrong}");
    }
}

#[test]
fn the_broker_process_is_charged_and_its_calls_are_counted_or_the_reason_is_given() {
    let broker = Broker::start(Faults::default());
    let pid = std::process::id();
    let options = format!(
        "--mode produce --seconds 0.5 --warmup 0.1 --window 4 --server-pid {pid} --count-syscalls \
         --device-p50-us 50"
    );
    let (report, _) = run(&broker, &options, 0);
    assert!(
        number(&report, "/server/cpu_us_per_message") > 0.0,
        "{report}"
    );
    assert!(
        number(&report, "/server/switches_voluntary") > 0.0,
        "{report}"
    );
    let p50 = number(&report, "/confirm_us/p50");
    assert!((number(&report, "/device_multiple") - p50 / 50.0).abs() < 0.01);
    match report.get("syscalls_note").and_then(Value::as_str) {
        // One read and one write per message at the least, on some side of the toy.
        None => assert!(number(&report, "/syscalls_per_message") > 0.5, "{report}"),
        Some(note) => assert!(!note.is_empty()),
    }
}

#[test]
fn the_table_says_what_was_asked_and_that_it_is_sound() {
    let broker = Broker::start(Faults::default());
    let output = binary()
        .args([
            "stomp",
            "--messages",
            "50",
            "--addr",
            &broker.address.to_string(),
        ])
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    for word in [
        "1 producer(s) x 1 in flight",
        "confirm ",
        "end to end",
        "p99.9",
        "sound",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn the_suite_prints_a_line_per_cell_and_drains_it() {
    let broker = Broker::start(Faults::default());
    let suite = |options: &[&str]| {
        binary()
            .args(["suite", "--quiet", "--addr", &broker.address.to_string()])
            .args([
                "--seconds",
                "0.2",
                "--warmup",
                "0.1",
                "--cells",
                "1x1,3x8",
                "--queues",
                "2",
            ])
            .args(options)
            .output()
            .expect("runs")
    };
    let output = suite(&["--device-p50-us", "50"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<&str> = text.lines().filter(|line| line.contains(" B |")).collect();
    assert_eq!(rows.len(), 4, "{text}");
    let columns = |line: &str| line.matches('|').count();
    let head = text
        .lines()
        .find(|line| line.contains("producers x"))
        .expect("a head");
    assert!(
        rows.iter().all(|row| columns(row) == columns(head)),
        "{text}"
    );
    assert_eq!(broker.waiting(), 0);
    let output = suite(&["--sizes", "128", "--no-drain", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(
        report
            .pointer("/cells")
            .and_then(Value::as_array)
            .map(Vec::len),
        Some(2)
    );
    assert!(broker.waiting() > 0);
}

#[test]
fn a_suite_on_a_broker_that_loses_a_message_names_the_cell() {
    let broker = Broker::start(Faults {
        drop_at: Some(3),
        ..Faults::default()
    });
    let output = binary()
        .args([
            "suite",
            "--quiet",
            "--addr",
            &broker.address.to_string(),
            "--cells",
            "1x4",
        ])
        .args(["--seconds", "0.2", "--sizes", "128", "--idle", "0.3"])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("1 x 4 x 128 B: 1 confirmed but not received"),
        "{stderr}"
    );
}

#[test]
fn the_device_is_measured_and_named_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder on the build disk");
    let output = binary()
        .args(["device", "--seconds", "0.2", "--json", "--dir"])
        .arg(dir.path())
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let runs = report.get("runs").and_then(Value::as_array).expect("runs");
    let sizes: Vec<f64> = runs.iter().map(|run| number(run, "/block_size")).collect();
    assert_eq!(sizes, [4096.0, 65_536.0, 262_144.0]);
    assert!(
        runs.iter().all(|run| number(run, "/latency_us/p50") > 0.0),
        "{report}"
    );
    for path in [
        "/disk/device",
        "/disk/queue/fua",
        "/disk/tick_hz",
        "/engine",
    ] {
        assert!(
            report.pointer(path).and_then(Value::as_str).is_some(),
            "{path} in {report}"
        );
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0);
}
