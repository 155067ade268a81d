//! Arbitrary bytes, arbitrarily cut, to the WebSocket side of one connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forebay::protocol::websocket::fuzz::exercise(data);
});
