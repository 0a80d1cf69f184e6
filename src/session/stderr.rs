//! The lines on stderr: where they go, and that they go nowhere else.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::export;
use crate::os::descriptors::{self, Identity};
use crate::os::process;

/// The process's stderr as it was at the start.
pub struct Stderr {
    identity: Option<Identity>,
    /// There is a terminal, on whose last line something stands that goes when there is something else to say.
    pub is_in_use: bool,
    /// What was not written yet.
    pub(super) unwritten: Arc<Unwritten>,
}

/// Lines of the sampler's thread that another one is to write, as stderr is not among the former's descriptors.
#[derive(Default)]
pub(super) struct Unwritten {
    /// How many wait for the sampler's thread and will write them.
    listeners: AtomicU32,
    lines: Mutex<Vec<u8>>,
}

/// Waits for the sampler's thread, and writes what it has said at the end.
pub(super) struct Listener<'a>(&'a Unwritten);

impl Unwritten {
    pub(super) fn listen(&self) -> Listener<'_> {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        Listener(self)
    }

    fn say(&self, line: &[u8]) {
        let has_listeners = self.listeners.load(Ordering::SeqCst) > 0;
        if !has_listeners && descriptors::write_to_stderr(line) {
            return;
        }
        if let Ok(mut lines) = self.lines.lock() {
            lines.extend_from_slice(line);
        }
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::SeqCst);
        // Nobody waits for another thread here.
        if let Ok(mut lines) = self.0.lines.try_lock() {
            let lines = std::mem::take(&mut *lines);
            if !lines.is_empty() {
                descriptors::write_to_stderr(&lines);
            }
        }
    }
}

/// What descriptor 2 of the process that the user started was, for those that it started: device
/// and file, or zeroes.
static FIRST_STDERR: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Hands that on to programs that a process executes.
const FIRST_STDERR_VARIABLE: &str = "PYSAMP_STDERR";

impl Stderr {
    /// Remembers what descriptor 2 is. A child whose descriptor 2 is not that of the process which
    /// the user started says nothing: somebody is about to read what it prints.
    pub fn now() -> Self {
        let first = FIRST_STDERR.each_ref().map(|part| part.load(Ordering::Relaxed));
        let is_first = |own: &Identity| first == [0, 0] || first == [own.0, own.1];
        Self {
            identity: descriptors::stderr_identity().filter(is_first),
            is_in_use: false,
            unwritten: Arc::default(),
        }
    }

    /// At load: this process is the first, or was started by it. Nobody may be using the
    /// environment.
    pub fn follow() {
        let parse = |text: String| {
            let (device, file) = text.split_once(':')?;
            Some((device.parse().ok()?, file.parse().ok()?))
        };
        if let Some(first) = std::env::var(FIRST_STDERR_VARIABLE).ok().and_then(parse) {
            remember_first(first);
        } else if let Some(own) = descriptors::stderr_identity()
            && process::threads() == Some(1)
        {
            remember_first(own);
            // SAFETY: there is one thread.
            unsafe { std::env::set_var(FIRST_STDERR_VARIABLE, format!("{}:{}", own.0, own.1)) };
        }
    }

    /// In a forked child, if it is not known yet.
    pub fn inherit() {
        let is_known = FIRST_STDERR.iter().any(|part| part.load(Ordering::Relaxed) != 0);
        if let Some(own) = descriptors::stderr_identity().filter(|_| !is_known) {
            remember_first(own);
        }
    }

    /// Writes one line that begins with `pysamp: `, whatever names are in it, unless descriptor 2 has become something else:
    /// that may be a file of the application's.
    pub fn line(&self, text: &str) {
        if self.identity.is_none() || self.identity != descriptors::stderr_identity() {
            return;
        }
        let start = if self.is_in_use { "\r\x1b[K" } else { "" };
        let line = format!("{start}pysamp: {}\n", export::one_line(text));
        match descriptors::are_own() {
            true => self.unwritten.say(line.as_bytes()),
            false => drop(descriptors::write_to_stderr(line.as_bytes())),
        }
    }
}

fn remember_first(identity: Identity) {
    FIRST_STDERR[0].store(identity.0, Ordering::Relaxed);
    FIRST_STDERR[1].store(identity.1, Ordering::Relaxed);
}
