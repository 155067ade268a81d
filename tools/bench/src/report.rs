//! The outcome of a run as a table for people, one JSON object for machines, and `.hgrm` files.

use crate::drive::Outcome;
use crate::ledger::Verdict;
use crate::plan::Plan;
use crate::schedule::Pace;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Write};

/// Everything a finished run is judged and shown by.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// What was asked.
    pub(crate) plan: &'a Plan,
    /// What happened.
    pub(crate) outcome: &'a Outcome,
    /// What the ledger says.
    pub(crate) verdict: &'a Verdict,
    /// The device's 4 KiB QD1 durable write, p50 in microseconds.
    pub(crate) device_p50_us: Option<f64>,
}

impl Report<'_> {
    /// Sentences that name each broken promise; empty is good.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = self.verdict.violations.clone();
        if self.outcome.is_stalled {
            let idle_s = self.plan.idle.as_secs_f64();
            violations.push(format!("no answer for {idle_s} s while answers were owed"));
        }
        violations.extend(self.outcome.leave_violation.clone());
        violations
    }

    /// Receipts per second in the window.
    pub(crate) fn confirmed_per_s(&self) -> f64 {
        per_second(
            self.outcome.measured.confirmed,
            self.outcome.measured.window_s(),
        )
    }

    /// Deliveries per second in the window.
    pub(crate) fn received_per_s(&self) -> f64 {
        per_second(
            self.outcome.measured.received,
            self.outcome.measured.window_s(),
        )
    }

    /// Share of one core that the generator itself used in the window.
    pub(crate) fn client_cores(&self) -> f64 {
        let (before, after) = (&self.outcome.before, &self.outcome.after);
        let cpu_ns = after.client_cpu_ns.saturating_sub(before.client_cpu_ns);
        cpu_ns as f64 / after.time_ns.saturating_sub(before.time_ns).max(1) as f64
    }

    /// CPU microseconds of the broker per message, and the cores it used.
    pub(crate) fn server_cpu(&self) -> Option<(f64, f64)> {
        let (before, after) = (&self.outcome.before, &self.outcome.after);
        let used = after.server?.since(before.server?);
        let cpu_us = (used.user_us + used.system_us) as f64;
        let wall_us = after.time_ns.saturating_sub(before.time_ns).max(1) as f64 / 1e3;
        Some((
            cpu_us / self.messages_between().max(1) as f64,
            cpu_us / wall_us,
        ))
    }

    /// Messages between the two samples: confirmed ones, or received ones when only consuming.
    fn messages_between(&self) -> u64 {
        let (before, after) = (&self.outcome.before, &self.outcome.after);
        if self.plan.production.is_some() {
            after.confirmed - before.confirmed
        } else {
            after.received - before.received
        }
    }

    fn is_durable(&self) -> bool {
        let side = self.plan.production.as_ref();
        side.is_some_and(|side| side.is_persistent)
    }

    /// The durable confirm p50 as a multiple of the device.
    pub(crate) fn device_multiple(&self) -> Option<f64> {
        let side = self.plan.production.as_ref()?;
        let confirm = &self.outcome.measured.confirm;
        let p50_us = confirm.value_at_quantile(0.5) as f64 / 1e3;
        let device_us = self.device_p50_us.filter(|us| *us > 0.0)?;
        (side.is_persistent && !confirm.is_empty()).then(|| p50_us / device_us)
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let measured = &self.outcome.measured;
        let mib = self.plan.body_size as f64 / f64::from(1 << 20);
        let _ = writeln!(text, "{}", self.headline());
        let _ = writeln!(text, "measured       {:.2} s", measured.window_s());
        for (name, is_there, rate) in [
            (
                "confirmed",
                self.plan.production.is_some(),
                self.confirmed_per_s(),
            ),
            (
                "received",
                self.plan.consumption.is_some(),
                self.received_per_s(),
            ),
        ] {
            if is_there {
                let _ = writeln!(text, "{name:14} {rate:.0} msgs/s, {:.1} MiB/s", rate * mib);
            }
        }
        let _ = writeln!(
            text,
            "{:14} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "latency us", "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, histogram) in self.histograms() {
            let _ = write!(text, "{name:14}");
            for value in figures_us(histogram) {
                let _ = write!(text, " {value:>10.1}");
            }
            text.push('\n');
        }
        self.write_costs(&mut text);
        self.write_ledger(&mut text);
        text
    }

    fn headline(&self) -> String {
        let plan = self.plan;
        let mut text = format!(
            "{} B bodies, {} queue(s)",
            plan.body_size,
            plan.queues.len()
        );
        if let Some(side) = &plan.production {
            let kind = if side.is_persistent {
                "durable"
            } else {
                "non-durable"
            };
            let pace = match side.pace {
                Pace::Closed { window } => format!("x {window} in flight, closed loop"),
                Pace::Open { rate_per_s } => format!("at {rate_per_s}/s together, open loop"),
            };
            let _ = write!(text, "; {} producer(s) {pace}, {kind}", side.producers);
        }
        if let Some(side) = &plan.consumption {
            let _ = write!(
                text,
                "; {} consumer(s), ack {}",
                side.consumers,
                side.ack_mode.name()
            );
        }
        text
    }

    fn histograms(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        let measured = &self.outcome.measured;
        let all = [
            ("confirm", &measured.confirm),
            ("end to end", &measured.deliver),
        ];
        all.into_iter()
            .filter(|(_, histogram)| !histogram.is_empty())
    }

    fn write_costs(&self, text: &mut String) {
        let cores = self.client_cores();
        let limit = if cores > 0.95 {
            "  <- the generator is the limit"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "client CPU     {:.0} % of a core{limit}",
            cores * 100.0
        );
        if self.plan.server_pid.is_some() {
            let _ = writeln!(text, "{}", self.server_line());
        }
        match &self.outcome.syscalls {
            Some(Ok(figure)) => {
                let (count, tool) = (figure.per_message, figure.tool);
                let _ = writeln!(text, "system calls   {count:.3} per message, by {tool}");
            }
            Some(Err(why)) => {
                let _ = writeln!(text, "system calls   not counted: {why}");
            }
            None => {}
        }
        match (self.device_multiple(), self.device_p50_us) {
            (Some(times), Some(device_us)) => {
                let _ = writeln!(
                    text,
                    "device         confirm p50 = {times:.2} x a 4 KiB durable write, {device_us:.1} us"
                );
            }
            (None, None) if self.is_durable() => {
                let _ = writeln!(
                    text,
                    "device         not measured: --device-dir DIR prints the multiple of a durable write"
                );
            }
            _ => {}
        }
        self.write_lateness(text);
    }

    fn write_lateness(&self, text: &mut String) {
        let measured = &self.outcome.measured;
        if measured.late_generator > 0 {
            let (count, worst_ns) = (measured.late_generator, measured.late_generator_max_ns);
            let _ = writeln!(
                text,
                "GENERATOR LATE {count} messages left 1 ms late by our own fault, worst {:.1} ms",
                worst_ns as f64 / 1e6
            );
        }
        if measured.late_blocked > 0 {
            let count = measured.late_blocked;
            let _ = writeln!(
                text,
                "back-pressure  {count} messages left late: the socket was full"
            );
        }
    }

    fn server_line(&self) -> String {
        let (before, after) = (self.outcome.before.server, self.outcome.after.server);
        let (Some((us, cores)), Some(before), Some(after)) = (self.server_cpu(), before, after)
        else {
            return "broker CPU     not read: no such process".to_owned();
        };
        let used = after.since(before);
        format!(
            "broker CPU     {us:.2} us per message ({:.0} % of a core, user {} ms, system {} ms), \
             switches: {} voluntary, {} involuntary",
            cores * 100.0,
            used.user_us / 1000,
            used.system_us / 1000,
            used.voluntary,
            used.involuntary
        )
    }

    fn write_ledger(&self, text: &mut String) {
        let counts = &self.verdict.counts;
        let _ = writeln!(
            text,
            "ledger         sent {}, confirmed {}, received {}, redelivered {}, of other runs {}",
            counts.sent, counts.confirmed, counts.received, counts.redelivered, counts.foreign
        );
        let violations = self.violations();
        if violations.is_empty() {
            let _ = writeln!(text, "               sound");
        }
        for violation in violations {
            let _ = writeln!(text, "VIOLATION      {violation}");
        }
    }

    /// One object with everything the table shows, and the settings.
    pub(crate) fn json(&self) -> Value {
        let (plan, outcome, counts) = (self.plan, self.outcome, &self.verdict.counts);
        let measured = &outcome.measured;
        let server = outcome
            .after
            .server
            .zip(outcome.before.server)
            .map(|(after, before)| {
                let used = after.since(before);
                json!({
                    "cpu_us_per_message": self.server_cpu().map(|(us, _)| us),
                    "cores": self.server_cpu().map(|(_, cores)| cores),
                    "user_us": used.user_us,
                    "system_us": used.system_us,
                    "switches_voluntary": used.voluntary,
                    "switches_involuntary": used.involuntary,
                })
            });
        let syscalls = outcome.syscalls.as_ref();
        json!({
            "what": self.headline(),
            "body_size": plan.body_size,
            "measured_s": measured.window_s(),
            "confirmed_per_s": self.confirmed_per_s(),
            "received_per_s": self.received_per_s(),
            "confirm_us": latency_json(&measured.confirm),
            "end_to_end_us": latency_json(&measured.deliver),
            "client_cores": self.client_cores(),
            "server": server,
            "syscalls_per_message":
                syscalls.and_then(|result| result.as_ref().ok()).map(|figure| figure.per_message),
            "syscalls_note": syscalls.and_then(|result| result.as_ref().err()),
            "device_p50_us": self.device_p50_us,
            "device_multiple": self.device_multiple(),
            "late_generator": measured.late_generator,
            "late_generator_max_us": measured.late_generator_max_ns as f64 / 1e3,
            "late_blocked": measured.late_blocked,
            "ledger": {
                "sent": counts.sent,
                "confirmed": counts.confirmed,
                "received": counts.received,
                "redelivered": counts.redelivered,
                "foreign": counts.foreign,
                "missing": self.verdict.missing,
                "unconfirmed": self.verdict.unconfirmed,
                "duplicates": counts.duplicates,
                "disorder": counts.disorder,
                "invented": counts.invented,
                "corrupt": counts.corrupt,
                "receipts_unexpected": counts.receipts_unexpected,
            },
            "violations": self.violations(),
        })
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// p50, p90, p99, p99.9 and max in microseconds.
pub(crate) fn figures_us(histogram: &Histogram<u64>) -> [f64; 5] {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    [
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        histogram.max() as f64 / 1e3,
    ]
}

/// The figures as an object; null when nothing was recorded.
pub(crate) fn latency_json(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let [p50, p90, p99, p999, max] = figures_us(histogram);
    json!({
        "count": histogram.len(),
        "mean": histogram.mean() / 1e3,
        "p50": p50, "p90": p90, "p99": p99, "p99_9": p999, "max": max,
    })
}

/// Writes the percentile distribution in the text form of HdrHistogram, values in microseconds.
pub(crate) fn write_hgrm(histogram: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut count = 0;
    for step in histogram.iter_quantiles(5) {
        count += step.count_since_last_iteration();
        let value_us = step.value_iterated_to() as f64 / 1e3;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value_us:12.3} {quantile:2.12} {count:10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    let (mean, deviation) = (histogram.mean() / 1e3, histogram.stdev() / 1e3);
    writeln!(
        out,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
    )?;
    let max = histogram.max() as f64 / 1e3;
    writeln!(
        out,
        "#[Max     = {max:12.3}, Total count    = {:12}]",
        histogram.len()
    )?;
    writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        2048
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::latency_histogram;

    #[test]
    fn hgrm_counts_everything_and_ends_at_the_maximum() {
        let mut histogram = latency_histogram();
        (1..=1000).for_each(|us| histogram.record(us * 1000).expect("in bounds"));
        let mut out = Vec::new();
        write_hgrm(&histogram, &mut out).expect("memory");
        let text = String::from_utf8(out).expect("text");
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("Value"))
            .map(|line| {
                line.split_whitespace()
                    .filter_map(|word| word.parse().ok())
                    .collect()
            })
            .filter(|row: &Vec<f64>| !row.is_empty())
            .collect();
        assert!(
            rows.windows(2)
                .all(|pair| pair[0][0] <= pair[1][0] && pair[0][2] <= pair[1][2])
        );
        let last = rows.last().expect("rows");
        assert_eq!((last[1], last[2]), (1.0, 1000.0));
        assert!((last[0] - 1000.0).abs() < 1.0, "{last:?}");
        let middle = rows.iter().find(|row| row[1] >= 0.5).expect("a median");
        assert!((middle[0] - 500.0).abs() < 2.0, "{middle:?}");
    }

    #[test]
    fn nothing_recorded_is_null() {
        assert_eq!(latency_json(&latency_histogram()), Value::Null);
    }
}
