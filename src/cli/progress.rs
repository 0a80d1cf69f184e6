//! What takes long says so, on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is done in less time needs no words.
const SILENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);

/// A line on stderr that tells what is being done and for how long. It goes with this value.
pub(super) struct Progress(Option<(Sender<String>, JoinHandle<()>)>);

impl Progress {
    /// Where stderr is no terminal nothing is said.
    pub(super) fn begin(what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let (sender, steps) = channel::<String>();
        let mut what = what.to_owned();
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
                        say(&format!("pysamp: {what}, {} s", start.elapsed().as_secs()));
                    }
                }
            }
            if has_spoken {
                say("");
            }
        });
        Self(Some((sender, speaker)))
    }

    /// Something else is being done now.
    pub(super) fn step(&self, what: &str) {
        if let Some((sender, _)) = &self.0 {
            let _ = sender.send(what.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((sender, speaker)) = self.0.take() {
            drop(sender);
            let _ = speaker.join();
        }
    }
}

/// Takes the place of what was said before.
pub(super) fn say(text: &str) {
    let columns = crate::os::terminal::columns(std::io::stderr()).unwrap_or(usize::MAX);
    // In the last column the cursor may be on the next line already.
    let text: String = crate::export::one_line(text).chars().take(columns - 1).collect();
    // What the program prints next begins where this does, not behind it.
    let _ = std::io::stderr().write_all(format!("\r\x1b[K{text}\r").as_bytes());
}
