//! The operator's end of the admin socket: asks the broker that runs on a data folder, and says the
//! answer in words or JSON.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::admin::shape::{DoneReport, ErrorReport, HealthReport, ListReport, QueueReport};
use super::admin::socket;
use super::cli::Refusal;
use super::exit::Exit;
use super::status;
use crate::limits::ADMIN_ANSWER_SIZE_MAX_BYTES;

/// What an operator wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// See how the broker does.
    Status,
    /// See all queues.
    List,
    /// See one.
    Show,
    /// Hand out nothing of it.
    Pause,
    /// Hand out its messages again.
    Resume,
    /// Drop what nobody holds.
    Purge,
    /// Delete it.
    Delete {
        /// Also under its consumers.
        is_forced: bool,
    },
}

/// Which of two queues of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoutingChoice {
    /// The queue.
    Anycast,
    /// The subscription.
    Multicast,
}

/// One operation on the queues of one broker.
#[derive(Clone, Debug)]
pub struct Order {
    /// What.
    pub operation: Operation,
    /// The queue, unless all are meant.
    pub name: Option<String>,
    /// Which, if two have the name.
    pub routing: Option<RoutingChoice>,
    /// The data folder of the broker.
    pub data: PathBuf,
    /// Whether to answer in JSON.
    pub is_json: bool,
}

/// What the broker says.
#[derive(Clone, Debug)]
pub struct Said {
    /// What to print to standard output.
    pub text: String,
    /// `Clean`; `Failed` if not all of the broker serves.
    pub exit: Exit,
}

/// Asks the running broker; gives what to print.
///
/// Errors: what to print to standard error, and the exit code: `NoBroker`, `Refused` (the broker
/// says no), `Usage` (what was asked for makes no sense to it), `Failed` (no answer).
pub fn run(order: &Order) -> Result<Said, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        if order.operation == Operation::Status {
            return order.status().await;
        }
        let (text, exit) = (order.run().await?, Exit::Clean);
        Ok(Said { text, exit })
    })
}

/// What stays as it is in a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

fn failed(message: String) -> Refusal {
    let exit = Exit::Failed;
    Refusal { message, exit }
}

impl Order {
    async fn run(&self) -> Result<String, Refusal> {
        let (method, verb) = match self.operation {
            Operation::Status => unreachable!("asked otherwise"),
            Operation::List => return self.list().await,
            Operation::Show => {
                let queue: QueueReport = self.ask(Method::GET, &self.path("", "")).await?;
                return self.say(&queue, || describe(&queue));
            }
            Operation::Pause => (Method::POST, "/pause"),
            Operation::Resume => (Method::POST, "/resume"),
            Operation::Purge => (Method::POST, "/purge"),
            Operation::Delete { .. } => (Method::DELETE, ""),
        };
        let is_forced = self.operation == Operation::Delete { is_forced: true };
        let query = if is_forced { "force=true" } else { "" };
        let done: DoneReport = self.ask(method, &self.path(verb, query)).await?;
        self.say(&done, || {
            let name = printable(&done.queue);
            match done {
                DoneReport {
                    purged: Some(n), ..
                } => format!("{name}: {n} messages dropped"),
                DoneReport {
                    paused: Some(true), ..
                } => format!("{name}: paused"),
                DoneReport {
                    paused: Some(false),
                    ..
                } => format!("{name}: goes on"),
                DoneReport { .. } => format!("{name}: deleted"),
            }
        })
    }

    /// A broker that does not serve says so as well.
    async fn status(&self) -> Result<Said, Refusal> {
        let (_, body) = self.fetch(Method::GET, "/v1/health").await?;
        let report: HealthReport = understood(&body)?;
        let exit = if report.serving {
            Exit::Clean
        } else {
            Exit::Failed
        };
        let text = self.say(&report, || status::describe(&report))?;
        Ok(Said { text, exit })
    }

    async fn list(&self) -> Result<String, Refusal> {
        let mut queues = Vec::new();
        let mut path = "/v1/queues".to_owned();
        let damaged = loop {
            let page: ListReport = self.ask(Method::GET, &path).await?;
            queues.extend(page.queues);
            let Some(next) = page.next else {
                break page.damaged_shards;
            };
            path = format!("/v1/queues?from={}", utf8_percent_encode(&next, PLAIN));
        };
        queues.sort_by(|one, other| (&one.name, one.shard).cmp(&(&other.name, other.shard)));
        let report = json!({ "queues": queues, "damaged_shards": damaged });
        self.say(&report, || {
            let mut text = table(&queues);
            for shard in damaged {
                let _ = writeln!(text, "shard {shard} is damaged: what it has is not listed");
            }
            text
        })
    }

    fn path(&self, verb: &str, query: &str) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        let name = utf8_percent_encode(name, PLAIN);
        let routing = self.routing.map(|routing| match routing {
            RoutingChoice::Anycast => "routing=anycast",
            RoutingChoice::Multicast => "routing=multicast",
        });
        let words = routing
            .into_iter()
            .chain((!query.is_empty()).then_some(query));
        let query = words.collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/v1/queues/{name}{verb}{mark}{query}")
    }

    fn say(
        &self,
        report: &impl serde::Serialize,
        in_words: impl FnOnce() -> String,
    ) -> Result<String, Refusal> {
        if !self.is_json {
            return Ok(in_words());
        }
        serde_json::to_string_pretty(report).map_err(|error| failed(error.to_string()))
    }

    async fn fetch(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), Refusal> {
        let stream = socket::connect(&self.data).map_err(|error| no_broker(&self.data, &error))?;
        exchange(stream, method, path).await.map_err(|reason| {
            let data = self.data.display();
            failed(format!("the broker on {data} did not answer: {reason}"))
        })
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Refusal> {
        let (status, body) = self.fetch(method, path).await?;
        if status.is_success() {
            return understood(&body);
        }
        let said = serde_json::from_slice::<ErrorReport>(&body);
        let message = said.map_or_else(|_| format!("answered {status}"), |said| said.error);
        let exit = match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Exit::Refused,
            StatusCode::BAD_REQUEST => Exit::Usage,
            _ => Exit::Failed,
        };
        let message = match &self.name {
            Some(name) => format!("{}: {message}", printable(name)),
            None => message,
        };
        Err(Refusal { message, exit })
    }
}

fn understood<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| failed(format!("the broker's answer is not understood: {error}")))
}

/// One request and its answer.
async fn exchange(
    stream: std::os::unix::net::UnixStream,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Bytes), String> {
    let text = |error: hyper::Error| error.to_string();
    let stream = tokio::net::UnixStream::from_std(stream).map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(text)?;
    // Ends with the exchange, which tells of its errors.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "forebay")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(text)?;
    let status = answer.status();
    let most = ADMIN_ANSWER_SIZE_MAX_BYTES as usize;
    let body = Limited::new(answer.into_body(), most).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    Ok((status, body))
}

fn no_broker(data: &Path, error: &io::Error) -> Refusal {
    let data = data.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Refusal {
            message: format!(
                "no broker runs on {data} ({error}). Remedy: name the data folder of a running \
                 broker by --data"
            ),
            exit: Exit::NoBroker,
        },
        io::ErrorKind::PermissionDenied => failed(format!(
            "the broker on {data} does not let this user in ({error}). Remedy: ask as the user who \
             runs it"
        )),
        _ => failed(format!("cannot reach a broker on {data}: {error}")),
    }
}

/// Names come from clients: nothing of them reaches a terminal as a control.
fn printable(name: &str) -> String {
    let escape = |one: char| {
        let is_control = one.is_control();
        let escaped = is_control.then(|| one.escape_default());
        escaped
            .into_iter()
            .flatten()
            .chain((!is_control).then_some(one))
    };
    name.chars().flat_map(escape).collect()
}

fn kind(queue: &QueueReport) -> &'static str {
    if queue.divert {
        return "divert";
    }
    if queue.retroactive {
        return "kept for new subscriptions";
    }
    match (queue.routing.as_str(), queue.subscription, queue.durable) {
        ("anycast", _, true) => "queue",
        ("anycast", _, false) => "temporary queue",
        (_, true, true) => "durable subscription",
        (_, true, false) => "shared subscription",
        (_, false, _) => "subscription",
    }
}

fn state(queue: &QueueReport) -> &'static str {
    if queue.paused { "paused" } else { "open" }
}

fn describe(queue: &QueueReport) -> String {
    let mut text = String::new();
    let lines: [(&str, String); 10] = [
        ("name", printable(&queue.name)),
        ("kind", kind(queue).to_owned()),
        ("address", printable(&queue.address)),
        ("state", state(queue).to_owned()),
        ("ready", queue.ready.to_string()),
        ("unsettled", queue.unsettled.to_string()),
        ("aside", queue.aside.to_string()),
        ("bytes", queue.bytes.to_string()),
        ("consumers", queue.consumers.to_string()),
        ("shard", queue.shard.to_string()),
    ];
    for (label, value) in lines {
        let _ = writeln!(text, "{label:<10} {value}");
    }
    text
}

fn table(queues: &[QueueReport]) -> String {
    let mut rows = vec![
        [
            "READY",
            "UNSETTLED",
            "ASIDE",
            "BYTES",
            "CONSUMERS",
            "SHARD",
            "STATE",
            "KIND",
            "NAME",
        ]
        .map(str::to_owned),
    ];
    rows.extend(queues.iter().map(|queue| {
        [
            queue.ready.to_string(),
            queue.unsettled.to_string(),
            queue.aside.to_string(),
            queue.bytes.to_string(),
            queue.consumers.to_string(),
            queue.shard.to_string(),
            state(queue).to_owned(),
            kind(queue).to_owned(),
            printable(&queue.name),
        ]
    }));
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _ = match at {
                0..6 => write!(text, "{cell:>width$}  "),
                8 => writeln!(text, "{cell}"),
                _ => write!(text, "{cell:<width$}  "),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_into_paths_whole() {
        let order = Order {
            operation: Operation::Purge,
            name: Some("a/b c?.%\u{e9}".to_owned()),
            routing: Some(RoutingChoice::Anycast),
            data: PathBuf::new(),
            is_json: false,
        };
        let path = order.path("/purge", "force=true");
        let expected = "/v1/queues/a%2Fb%20c%3F%2E%25%C3%A9/purge?routing=anycast&force=true";
        assert_eq!(path, expected);
    }

    #[test]
    fn names_never_reach_a_terminal_as_controls() {
        assert_eq!(printable("a\u{1b}[2J \u{e9}\n"), "a\\u{1b}[2J \u{e9}\\n");
    }
}
