//! The shard thread's scheduling slice (`docs/decisions/2026-11-22-placement.md`).
//!
//! On a disk without FUA a kernel worker bound to the disk interrupt's core finishes each durable
//! write. A thread with a long EEVDF slice has the later deadline, so the worker runs at once.

use std::io;

#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

impl SchedAttr {
    const fn new(runtime_ns: u64) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            policy: libc::SCHED_OTHER as u32,
            flags: 0,
            nice: 0,
            priority: 0,
            runtime_ns,
            deadline_ns: 0,
            period_ns: 0,
        }
    }
}

/// Sets the calling thread's scheduling slice.
///
/// Errors: the kernel refused; before Linux 6.12 the slice is silently ignored.
/// Source: sched_setattr(2), SCHED_OTHER with `sched_runtime`.
pub fn set_slice(slice: std::time::Duration) -> io::Result<()> {
    let attr = SchedAttr::new(u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX));
    // SAFETY: the structure matches struct sched_attr (version 0, 48 bytes, which `size` says) and
    // lives across the call; pid 0 is the calling thread; the flags argument is zero.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads the calling thread's scheduling slice; zero where the kernel has no settable one.
///
/// Errors: the system's.
/// Source: sched_getattr(2).
pub fn slice() -> io::Result<std::time::Duration> {
    let mut attr = SchedAttr::new(0);
    let size = attr.size;
    // SAFETY: the kernel writes at most `size` bytes, which is the structure's own size, into
    // memory that is ours alone across the call; pid 0 is the calling thread; flags are zero.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if result == 0 {
        Ok(std::time::Duration::from_nanos(attr.runtime_ns))
    } else {
        Err(io::Error::last_os_error())
    }
}
