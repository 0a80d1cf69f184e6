//! `--realtime-stats`: how sampling goes, once a second, while the program runs.
//!
//! The numbers are those in the headers of the recordings that profiled processes keep, and what the kernel says
//! of the sampling threads.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::progress::say;
use super::run_dir::pid_and_kind;
use crate::profile::Meta;
use crate::profile::recording::{self, Counters};

const PAUSE: Duration = Duration::from_secs(1);

/// A line on stderr that is kept up to date. It goes with this value.
pub(super) struct Realtime(Option<(Sender<()>, JoinHandle<()>)>);

impl Realtime {
    /// To be called where all signals are blocked that are somebody else's.
    pub(super) fn begin(run_dir: &Path) -> Self {
        let (sender, end) = channel();
        let mut watch = Watch::new(run_dir.to_owned());
        let speaker = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(PAUSE) {
                say(&watch.look());
            }
            say("");
        });
        Self(Some((sender, speaker)))
    }
}

impl Drop for Realtime {
    fn drop(&mut self) {
        if let Some((sender, speaker)) = self.0.take() {
            drop(sender);
            let _ = speaker.join();
        }
    }
}

/// What there was to see at the last look.
struct Watch {
    run_dir: PathBuf,
    at: Instant,
    seen: HashMap<u32, Seen>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    counters: Counters,
    /// Of the sampling thread.
    cpu_ns: u64,
}

impl Watch {
    fn new(run_dir: PathBuf) -> Self {
        Self { run_dir, at: Instant::now(), seen: HashMap::new() }
    }

    /// One line about the time since the last look.
    fn look(&mut self) -> String {
        let now = Instant::now();
        let passed_s = now.duration_since(std::mem::replace(&mut self.at, now)).as_secs_f64();
        let seen = self.running();
        if seen.is_empty() {
            return "pysamp: nothing is being sampled".to_owned();
        }
        let (mut fastest_hz, mut cpu_ns, mut since) = (0.0_f64, 0, Meta::default());
        for (pid, seen) in &seen {
            let before = self.seen.get(pid).copied().unwrap_or_default();
            let [now, then] = [seen.counters, before.counters];
            // A new recording has begun.
            let then = if now.ticks < then.ticks { Counters::default() } else { then };
            let ticks = now.ticks - then.ticks;
            fastest_hz = fastest_hz.max(ticks as f64 / passed_s);
            since.ticks += ticks;
            since.missed += now.missed.saturating_sub(then.missed);
            since.samples += now.samples.saturating_sub(then.samples);
            since.failed += now.failed.saturating_sub(then.failed);
            cpu_ns += seen.cpu_ns.saturating_sub(before.cpu_ns);
        }
        let all: u64 = seen.values().map(|seen| seen.counters.samples).sum();
        let processes = match seen.len() {
            1 => String::new(),
            many => format!(", {many} processes"),
        };
        self.seen = seen;
        format!(
            "pysamp: {fastest_hz:.0} Hz, {all} samples, {:.2}% failed, {:.2}% missed, sampler {:.1}% CPU{processes}",
            100.0 * since.failed_share(),
            100.0 * since.missed_share(),
            cpu_ns as f64 / 1e7 / passed_s,
        )
    }

    /// The recordings of processes that run.
    fn running(&self) -> HashMap<u32, Seen> {
        let entries = std::fs::read_dir(&self.run_dir).into_iter().flatten().flatten();
        let recordings = entries.filter_map(|entry| {
            let name = entry.file_name();
            let (pid, _) = pid_and_kind(&name).filter(|(_, kind)| *kind == "pysamp")?;
            let counters = recording::counters(&entry.path()).ok()?;
            Some((pid, Seen { counters, cpu_ns: sampler_cpu_ns(pid)? }))
        });
        recordings.collect()
    }
}

/// What the sampling thread of a process has used of a processor; nothing if there is none.
fn sampler_cpu_ns(pid: u32) -> Option<u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let mut samplers = threads.map(|thread| thread.path()).filter(|thread| {
        std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "pysamp")
    });
    let times = std::fs::read_to_string(samplers.next()?.join("schedstat")).ok()?;
    times.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::format;

    #[test]
    fn what_has_been_since_the_last_look_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(directory.path().to_owned());
        assert_eq!(watch.look(), "pysamp: nothing is being sampled");
        let pid = std::process::id();
        // Stands for the sampling thread of this process.
        let (end, wait) = channel::<()>();
        let thread = std::thread::Builder::new().name("pysamp".into());
        let thread = thread.spawn(move || wait.recv().is_ok()).unwrap();
        while sampler_cpu_ns(pid).is_none() {
            std::thread::yield_now();
        }
        let record = |[ticks, missed, samples, failed]: [u64; 4]| {
            let mut header = [0; format::HEADER_BYTES];
            header[..8].copy_from_slice(&format::MAGIC);
            header[format::VERSION_AT..][..4].copy_from_slice(&format::VERSION.to_le_bytes());
            for (place, number) in [
                (format::counter::TICKS, ticks),
                (format::counter::MISSED, missed),
                (format::counter::SAMPLES, samples),
                (format::counter::FAILED, failed),
            ] {
                header[place..][..8].copy_from_slice(&number.to_le_bytes());
            }
            std::fs::write(directory.path().join(format!("{pid}.pysamp")), header).unwrap();
        };
        record([100, 100, 99, 1]);
        let line = watch.look();
        assert!(line.contains(" Hz, 99 samples, 1.00% failed, 50.00% missed, sampler "), "{line}");
        record([200, 100, 299, 1]);
        let line = watch.look();
        assert!(line.contains(" Hz, 299 samples, 0.00% failed, 0.00% missed, sampler "), "{line}");
        record([10, 0, 5, 5]);
        let line = watch.look();
        assert!(line.contains(" Hz, 5 samples, "), "{line}");
        drop(end);
        assert!(!thread.join().unwrap());
    }
}
