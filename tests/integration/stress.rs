//! What wears out a profiler: threads without end and many at once, the deepest stacks, code that
//! is made and dropped. Nothing crashes, no name is wrong, and memory stays.
//!
//! `PYSAMP_LONG=1` asks for the large numbers.

use std::collections::HashSet;
use std::env;

use crate::exactness::{churned, faults, none};
use crate::support::{
    Cores, Interpreter, Run, Stack, command, ensure, on_each, profile, run_to_end,
};

const SCRIPT: &str = "stress.py";

/// The deepest stack that is kept whole; of a deeper one, the newest frames are.
const MOST_FRAMES: usize = 8192;

fn count(short: u64, long: u64) -> u64 {
    if env::var_os("PYSAMP_LONG").is_some() { long } else { short }
}

/// Runs a part of stress.py, in which `caller` calls the functions of code_churn.py, under pysamp:
/// to its good end and with no name out of place.
fn survived(python: &Interpreter, part: &str, count: u64, caller: &str) -> Result<Run, String> {
    let run = profile(python, SCRIPT, &[part, &count.to_string()], "rate=10khz")?;
    ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
    ensure(run.own_stderr().is_empty(), || run.stderr.clone())?;
    none(&faults(&run.collapsed, |frame, above| churned(frame, above, caller)))?;
    Ok(run)
}

/// By how many bytes memory grew after the first fifth of a run, beyond what it grows without
/// pysamp.
fn grown(python: &Interpreter, part: &str, count: u64, run: &Run) -> Result<i64, String> {
    let alone = run_to_end(&mut command(python, SCRIPT, &[part, &count.to_string()]))?;
    let alone = Run::of(&String::from_utf8_lossy(&alone.output.stdout), "")?;
    let bytes = |run: &Run| run.json()?["grown"].as_i64().ok_or_else(|| run.stdout.clone());
    Ok(bytes(run)? - bytes(&alone)?)
}

#[test]
fn short_threads_without_end_are_survived() {
    /// What is kept of each thread that was sampled: its ids, its name, where it was.
    const BYTES_PER_THREAD: u64 = 512;
    /// What tables take when they grow, and what is kept of threads until they are known to be
    /// gone.
    const ROOM: u64 = 4 << 20;
    let count = count(2_000, 10_000);
    on_each(Cores::one, |python| {
        let run = survived(python, "threads", count, "one_moment")?;
        let threads: HashSet<u64> = run.collapsed.iter().map(|stack| stack.tid).collect();
        ensure(threads.len() as u64 > count / 20, || format!("{} threads seen", threads.len()))?;
        let grown = grown(python, "threads", count, &run)?;
        println!("{}: {} of {count} threads, {grown} bytes more", python.name, threads.len());
        ensure(grown < (count * BYTES_PER_THREAD + ROOM) as i64, || format!("{grown} bytes more"))
    });
}

#[test]
fn five_hundred_threads_at_once_are_survived() {
    on_each(Cores::one, |python| {
        let run = survived(python, "crowd", 500, "some_moments")?;
        let threads: HashSet<u64> = run.collapsed.iter().map(|stack| stack.tid).collect();
        ensure(threads.len() == 501, || format!("{} threads seen", threads.len()))
    });
}

#[test]
fn the_deepest_stacks_are_survived() {
    on_each(Cores::one, |python| {
        let run = survived(python, "deep", count(20_000, 200_000), "")?;
        let deepest = run.collapsed.iter().map(|stack| stack.frames.len()).max();
        ensure(deepest >= Some(MOST_FRAMES), || format!("no deeper than {deepest:?}"))?;
        for name in ["bottom", "bottomless"] {
            let is_it = |stack: &&Stack| stack.frames.last().is_some_and(|top| top.name == name);
            let seen: u64 = run.collapsed.iter().filter(is_it).map(|stack| stack.count).sum();
            ensure(seen > 100, || format!("{name} has {seen} samples"))?;
        }
        Ok(())
    });
}

#[test]
fn functions_that_are_dropped_leave_nothing_behind() {
    /// What tables take when they grow for the kinds of functions that the first fifth has not met:
    /// no more with a million functions. Were something of each function kept, it would be twice that
    /// with the fewest.
    const MOST_BYTES: i64 = 2 << 20;
    let count = count(50_000, 1_000_000);
    on_each(Cores::one, |python| {
        let run = survived(python, "churn", count, "churn")?;
        let reused = run.json()?["reused"].as_u64().unwrap_or(0);
        ensure(reused > count / 10, || format!("only {reused} landed where another kind was"))?;
        let grown = grown(python, "churn", count, &run)?;
        println!("{}: {reused} of {count} reused, {grown} bytes more", python.name);
        ensure(grown < MOST_BYTES, || format!("{grown} bytes more"))
    });
}
