//! The socket itself: who may come in, when it is there, and what it does with nonsense.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use super::*;

#[test]
fn the_socket_is_the_owners_and_goes_with_the_broker() {
    let mut setup = setup("life", "1");
    let socket = setup.data.join("admin.sock");
    refused(&setup, &["list"], NO_BROKER, "no broker runs on");
    let broker = setup.start();
    let found = fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    json(&setup, &["list"]);
    // What a dead broker leaves is replaced.
    broker.kill();
    assert!(socket.exists());
    refused(&setup, &["list"], NO_BROKER, "no broker runs on");
    let broker = setup.start();
    json(&setup, &["list"]);
    // A second broker is refused before it touches the first one's.
    setup.refused().expect(3, &["in use by another broker"]);
    json(&setup, &["list"]);
    assert_eq!(broker.stop().code(), Some(0));
    assert!(!socket.exists());
    refused(&setup, &["pause", "q"], NO_BROKER, "no broker runs on");
}

#[test]
fn a_folder_with_a_long_path_has_a_socket_as_well() {
    let folder = broker::fresh_folder("admin-long");
    let deep = folder.join("d".repeat(120));
    fs::create_dir(&deep).unwrap();
    let mut setup = Setup::new(&deep.join("data"));
    setup.config = "[journal]\nsegment_size = \"1MiB\"\n".to_owned();
    let _broker = setup.start();
    json(&setup, &["list"]);
}

#[test]
fn what_is_not_understood_is_refused_and_harms_nobody() {
    let mut setup = setup("nonsense", "2");
    let broker = setup.start();
    let data = setup.data.clone();
    for (request, status) in [
        ("GET /", 404),
        ("GET /v2/queues", 404),
        ("POST /v1/queues", 405),
        ("GET /v1/queues/q/purge", 405),
        ("GET /v1/queues?from=x", 400),
        ("GET /v1/queues?from=9.0", 400),
        ("GET /v1/queues?from=0.4294967296", 400),
        ("GET /v1/queues?form=0.0", 400),
        ("GET /v1/queues/%ff", 400),
        ("GET /v1/queues/q?routing=unicast", 400),
        ("POST /v1/queues/q/pause?force=true", 400),
        ("DELETE /v1/queues/q?force=maybe", 400),
    ] {
        let (found, body) = http(&data, request);
        assert_eq!(found, status, "{request}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].is_string(), "{request}: {body}");
    }
    let past_the_end = http(&data, "GET /v1/queues?from=1.4294967295");
    assert_eq!(
        past_the_end,
        (200, "{\"queues\":[],\"next\":null}".to_owned())
    );
    let mut noise = UnixStream::connect(data.join("admin.sock")).unwrap();
    noise.write_all(&[0xff; 64 * 1024]).unwrap_or_default();
    drop(noise);
    // More connections than are served at once say nothing; they are sent away by and by.
    let silent: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(data.join("admin.sock")).unwrap())
        .collect();
    json(&setup, &["list"]);
    drop(silent);
    send(&mut connect(broker.address()), "/queue/q", &["one"]);
    assert_eq!(broker.stop().code(), Some(0));
}
