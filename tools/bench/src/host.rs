//! The machine around a run: clock, own CPU time, pinning, and what /proc says of the broker.
//!
//! Readers of /proc are split into a file access and a pure parser, so that tests need no process.

use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io;

/// Gives the monotonic clock in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// Gives the CPU time this process has used, in nanoseconds.
pub(crate) fn own_cpu_ns() -> u64 {
    clock_ns(ClockId::ProcessCPUTime)
}

fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Makes a number that differs from run to run.
pub(crate) fn run_number() -> u32 {
    let time = clock_gettime(ClockId::Realtime);
    let mixed = (time.tv_nsec as u64 ^ (time.tv_sec as u64) << 20 ^ u64::from(std::process::id()))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Binds this thread to one core and asks the kernel to wake it without slack.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)?;
    Ok(())
}

/// Asks for wake-ups within a microsecond instead of 50. Best effort: a kernel without it is late
/// by as much, and the report's lateness says so.
pub(crate) fn sharpen_timers() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// Raises the limit of open files to what the system allows. Best effort: connecting fails by name
/// if it was not enough.
pub(crate) fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessUse {
    /// Microseconds in user space, all threads.
    pub(crate) user_us: u64,
    /// Microseconds in the kernel, all threads.
    pub(crate) system_us: u64,
    /// Times a living thread went to sleep.
    pub(crate) voluntary: u64,
    /// Times a living thread was pushed off its core.
    pub(crate) involuntary: u64,
}

impl ProcessUse {
    /// Reads /proc/PID/stat and the status of each of its threads.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let (user, system) = parse_stat(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let mut used = Self {
            user_us: user * tick_us,
            system_us: system * tick_us,
            ..Self::default()
        };
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between the listing and the reading.
            let Ok(status) = fs::read_to_string(thread?.path().join("status")) else {
                continue;
            };
            used.voluntary += status_number(&status, "voluntary_ctxt_switches:");
            used.involuntary += status_number(&status, "nonvoluntary_ctxt_switches:");
        }
        Ok(used)
    }

    /// Gives what was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user_us: self.user_us.saturating_sub(earlier.user_us),
            system_us: self.system_us.saturating_sub(earlier.system_us),
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }
}

/// Fields 14 and 15, counted behind the command's closing bracket (the name may hold spaces).
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn status_number(status: &str, name: &str) -> u64 {
    let number = status.lines().find_map(|line| line.strip_prefix(name));
    number
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_brackets_and_spaces() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 1 2 3 4 517 83 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse_stat(stat), Some((517, 83)));
        assert_eq!(parse_stat("42 nothing"), None);
    }

    #[test]
    fn context_switches_are_not_mixed_up() {
        let status = "Threads:\t1\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(status_number(status, "voluntary_ctxt_switches:"), 5);
        assert_eq!(status_number(status, "nonvoluntary_ctxt_switches:"), 9);
    }

    #[test]
    fn own_process_can_be_read() {
        let before = ProcessUse::of(std::process::id()).expect("we exist");
        let start_ns = own_cpu_ns();
        while own_cpu_ns() - start_ns < 60_000_000 {}
        let used = ProcessUse::of(std::process::id())
            .expect("we exist")
            .since(before);
        assert!(used.user_us + used.system_us >= 30_000, "{used:?}");
    }
}
