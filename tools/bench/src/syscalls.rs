//! System calls per message, by `perf` (cheap) or `strace` (slows the broker, said so).
//!
//! Runs after the measured window while the load goes on, so the figures stay undisturbed.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the calls are counted.
pub(crate) const COUNTING: Duration = Duration::from_millis(1500);

/// A count under way.
#[derive(Debug)]
pub(crate) struct SyscallCount {
    child: Child,
    is_perf: bool,
}

impl SyscallCount {
    /// Begins to count the calls of all threads of `pid` for `COUNTING`.
    ///
    /// Errors: a sentence for the report; the run goes on without.
    pub(crate) fn start(pid: u32) -> Result<Self, String> {
        let pid = pid.to_string();
        let perf = Command::new("perf")
            .args([
                "stat",
                "-x,",
                "-e",
                "raw_syscalls:sys_enter",
                "-p",
                &pid,
                "--timeout",
            ])
            .arg(COUNTING.as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        if let Ok(child) = perf
            && Self::may_trace()
        {
            return Ok(Self {
                child,
                is_perf: true,
            });
        }
        let seconds = COUNTING.as_secs_f64().to_string();
        let strace = Command::new("timeout")
            .args(["-s", "INT", &seconds, "strace", "-f", "-c", "-p", &pid])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match strace {
            Ok(child) => Ok(Self {
                child,
                is_perf: false,
            }),
            Err(error) => Err(format!("neither perf nor strace can be used ({error})")),
        }
    }

    /// perf counts tracepoints only for those who may read the tracing folder.
    fn may_trace() -> bool {
        ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
            .iter()
            .any(|folder| {
                std::fs::read(format!("{folder}/events/raw_syscalls/sys_enter/id")).is_ok()
            })
    }

    /// Waits for the counter and gives the calls per message over `messages` of the same time.
    pub(crate) fn finish(mut self, messages: u64) -> Result<SyscallFigure, String> {
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().ok_or("no output of the counter")?;
        stderr
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        self.child.wait().map_err(|error| error.to_string())?;
        let calls = if self.is_perf {
            parse_perf(&text)
        } else {
            parse_strace(&text)
        };
        let tool = if self.is_perf {
            "perf"
        } else {
            "strace (slows the broker)"
        };
        let Some(calls) = calls else {
            let last = text.lines().last().unwrap_or("no output");
            return Err(format!("{tool} gave no count: {last}"));
        };
        Ok(SyscallFigure {
            per_message: calls as f64 / messages.max(1) as f64,
            tool,
        })
    }
}

/// The result, with its source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyscallFigure {
    /// Calls of the broker per confirmed message.
    pub(crate) per_message: f64,
    /// What counted.
    pub(crate) tool: &'static str,
}

/// `291062,,raw_syscalls:sys_enter,...`
fn parse_perf(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

/// `100.00    0.000123           2        61         3 total`
fn parse_strace(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_are_read() {
        assert_eq!(
            parse_perf("x\n3,,raw_syscalls:sys_enter,291062,100.00,,\n"),
            Some(3)
        );
        assert_eq!(
            parse_perf("<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n"),
            None
        );
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     100.00    0.000123           2        61         3 total\n";
        assert_eq!(parse_strace(table), Some(61));
        assert_eq!(
            parse_strace("strace: attach: Operation not permitted\n"),
            None
        );
    }
}
