//! Clocks in nanoseconds, and sleeping until an instant.
#![allow(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

/// `CLOCK_MONOTONIC`, nanoseconds.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// Nanoseconds since the machine was started, counting the time it slept.
pub fn since_boot_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME).unwrap_or(0)
}

/// Nanoseconds since the Unix epoch.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// CPU time that this process has used, in nanoseconds.
pub fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0)
}

/// CPU time that the thread with this kernel id has used, in nanoseconds; `None` once it is gone.
///
/// The clock is named by the kernel tid (`MAKE_THREAD_CPUCLOCK` in the kernel's `posix-timers.h`):
/// `pthread_getcpuclockid` would dereference a `pthread_t` that may be dead.
pub fn thread_cpu_ns(tid: u32) -> Option<u64> {
    read((!(tid as libc::clockid_t) << 3) | 6)
}

/// Whether the CPU clocks of threads move with every microsecond that these run. Some emulated
/// kernels count in ticks.
pub fn has_fine_thread_clocks(own_tid: u32) -> bool {
    const FINE_NS: u64 = 20_000;
    const READS: usize = 1000;
    let Some(first) = thread_cpu_ns(own_tid) else { return false };
    let mut later = (0..READS).filter_map(|_| thread_cpu_ns(own_tid));
    later.find(|&ns| ns != first).is_some_and(|ns| ns.saturating_sub(first) < FINE_NS)
}

/// Sleeps until `CLOCK_MONOTONIC` reaches `deadline_ns`, or a signal arrives.
pub fn sleep_until(deadline_ns: u64) {
    let deadline = timespec(deadline_ns);
    // SAFETY: `deadline` is a valid timespec and a null remainder is allowed for absolute sleeps.
    unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &deadline,
            std::ptr::null_mut(),
        );
    }
}

/// Nanoseconds as the kernel's seconds and nanoseconds.
pub fn timespec(ns: u64) -> libc::timespec {
    libc::timespec { tv_sec: (ns / 1_000_000_000) as _, tv_nsec: (ns % 1_000_000_000) as _ }
}

fn read(clock: libc::clockid_t) -> Option<u64> {
    let mut now = timespec(0);
    // SAFETY: `now` is valid for writing a timespec.
    let status = unsafe { libc::clock_gettime(clock, &mut now) };
    (status == 0).then_some(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}
