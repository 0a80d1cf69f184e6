//! Runs a command beside a thread that only wakes at a rate: what sampling costs before any sample.
//!
//!     timer_floor RATE_HZ COMMAND ARGUMENTS...
//!
//! Prints `N ticks, M ns` on stderr: how often the thread woke, and its CPU time.

use std::env;
use std::fs;
use std::process::{Command, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Nanoseconds that the calling thread has been on a CPU.
fn own_cpu_ns() -> u64 {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = schedstat.split_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or(0)
}

/// Takes away the 50 microseconds by which Linux lets the calling thread oversleep.
fn wake_on_time() -> Option<()> {
    let thread = fs::read_link("/proc/thread-self").ok()?;
    let tid = thread.file_name()?.to_str()?;
    fs::write(format!("/proc/{tid}/timerslack_ns"), "1").ok()
}

/// Wakes every `period` until told to stop; returns the ticks and their CPU time.
fn tick(period: Duration, stop: &AtomicBool) -> (u64, u64) {
    let _ = wake_on_time(); // without it the ticks are merely fewer
    let before = own_cpu_ns();
    let mut due = Instant::now();
    let mut ticks = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        due = (due + period).max(now);
        thread::sleep(due - now);
        ticks += 1;
    }
    (ticks, own_cpu_ns() - before)
}

fn main() {
    let mut arguments = env::args().skip(1);
    let rate: f64 = arguments.next().and_then(|it| it.parse().ok()).expect("RATE_HZ");
    let period = Duration::from_secs_f64(1.0 / rate);
    let command = arguments.next().expect("COMMAND");

    let stop = Arc::new(AtomicBool::new(false));
    let ticker = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || tick(period, &stop))
    };
    let status = Command::new(command).args(arguments).status().expect("the command starts");
    stop.store(true, Ordering::Relaxed);
    let (ticks, cpu) = ticker.join().expect("the ticker ends");
    eprintln!("{ticks} ticks, {cpu} ns");
    exit(status.code().unwrap_or(1));
}
