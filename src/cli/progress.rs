//! What takes long says so, on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::export::one_line;

/// What is done in less time needs no words.
const SILENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);

/// A line on stderr that tells what is being done and for how long, and how much of it is done where that is
/// known. It goes with this value.
pub(super) struct Progress {
    speaker: Option<(Sender<String>, JoinHandle<()>)>,
    work: Arc<Work>,
}

/// How much there is to do, and how much is done.
#[derive(Default)]
struct Work {
    done: AtomicU64,
    /// 0 if it is not known.
    all: AtomicU64,
}

impl Work {
    fn percent(&self) -> Option<u64> {
        let [done, all] = [&self.done, &self.all].map(|number| number.load(Ordering::Relaxed));
        let percent = u128::from(done.min(all)) * 100;
        percent.checked_div(all.into()).map(|percent| percent as u64)
    }
}

impl Progress {
    /// Where stderr is no terminal nothing is said.
    pub(super) fn begin(what: &str) -> Self {
        let work = Arc::<Work>::default();
        if !std::io::stderr().is_terminal() {
            return Self { speaker: None, work };
        }
        let (sender, steps) = channel::<String>();
        let (mut what, told) = (what.to_owned(), work.clone());
        let speaker = std::thread::spawn(move || {
            let start = Instant::now();
            let mut has_spoken = false;
            loop {
                match steps.recv_timeout(PAUSE) {
                    Ok(step) => what = step,
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) if start.elapsed() < SILENCE => {}
                    Err(RecvTimeoutError::Timeout) => {
                        has_spoken = true;
                        let seconds = start.elapsed().as_secs();
                        say(&line(&what, told.percent(), seconds, columns()));
                    }
                }
            }
            if has_spoken {
                say("");
            }
        });
        Self { speaker: Some((sender, speaker)), work }
    }

    /// Something else is being done now.
    pub(super) fn step(&self, what: &str) {
        self.part(what, 0, 0);
    }

    /// Something is being done that is a part of `all` there is to do, 0 if that is not known; `done` of it was
    /// before. To what is returned is added what is done.
    pub(super) fn part(&self, what: &str, done: u64, all: u64) -> &AtomicU64 {
        self.work.done.store(done, Ordering::Relaxed);
        self.work.all.store(all, Ordering::Relaxed);
        if let Some((sender, _)) = &self.speaker {
            let _ = sender.send(what.to_owned());
        }
        &self.work.done
    }

    /// Makes room for something else on stderr.
    pub(super) fn clear(&self) {
        if self.speaker.is_some() {
            say("");
        }
    }
}

/// What there is to say, not longer than there is room.
fn line(what: &str, percent: Option<u64>, seconds: u64, columns: usize) -> String {
    let percent = percent.map(|percent| format!(", {percent}%")).unwrap_or_default();
    let rest = format!("{percent}, {seconds} s");
    let room = columns.saturating_sub("pysamp: ".len() + rest.len() + 1);
    let what = one_line(what);
    if what.chars().count() <= room {
        return format!("pysamp: {what}{rest}");
    }
    let cut: String = what.chars().take(room.saturating_sub(1)).collect();
    format!("pysamp: {cut}…{rest}")
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((sender, speaker)) = self.speaker.take() {
            drop(sender);
            let _ = speaker.join();
        }
    }
}

/// Takes the place of what was said before.
pub(super) fn say(text: &str) {
    // In the last column the cursor may be on the next line already.
    let text: String = one_line(text).chars().take(columns() - 1).collect();
    // What the program prints next begins where this does, not behind it.
    let _ = std::io::stderr().write_all(format!("\r\x1b[K{text}\r").as_bytes());
}

fn columns() -> usize {
    crate::os::terminal::columns(std::io::stderr()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_is_done() {
        let progress = Progress { speaker: None, work: Arc::default() };
        assert_eq!(progress.work.percent(), None);
        progress.part("reading", 50, 200).fetch_add(49, Ordering::Relaxed);
        assert_eq!(progress.work.percent(), Some(49));
        // A file can become longer meanwhile.
        progress.part("reading", 200, 200).fetch_add(1, Ordering::Relaxed);
        assert_eq!(progress.work.percent(), Some(100));
        progress.part("reading", u64::MAX - 1, u64::MAX);
        assert_eq!(progress.work.percent(), Some(99));
        progress.step("writing");
        assert_eq!(progress.work.percent(), None);
    }

    #[test]
    fn long_names_leave_room_for_numbers() {
        assert_eq!(line("reading a", Some(7), 12, usize::MAX), "pysamp: reading a, 7%, 12 s");
        assert_eq!(line("writing\na", None, 1, 80), "pysamp: writing\\na, 1 s");
        let long = line(&"é".repeat(200), Some(100), 3, 40);
        assert_eq!(long, format!("pysamp: {}…, 100%, 3 s", "é".repeat(19)));
        assert_eq!(long.chars().count(), 39);
        assert_eq!(line("reading", Some(5), 1, 3), "pysamp: …, 5%, 1 s");
    }
}
