//! The lines on stderr: where they go, and that they go nowhere else.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::export;
use crate::os::process;

/// The process's stderr as it was at the start.
pub struct Stderr {
    identity: Option<(u64, u64)>,
    /// There is a terminal, on whose last line something stands that goes when there is something else to say.
    pub is_in_use: bool,
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
        let identity = identity_of_stderr();
        let is_first = |own: &(u64, u64)| first == [0, 0] || first == [own.0, own.1];
        Self { identity: identity.filter(is_first), is_in_use: false }
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
        } else if let Some(own) = identity_of_stderr()
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
        if let Some(own) = identity_of_stderr().filter(|_| !is_known) {
            remember_first(own);
        }
    }

    /// Writes one line that begins with `pysamp: `, whatever names are in it, unless descriptor 2 has become something else:
    /// that may be a file of the application's.
    pub fn line(&self, text: &str) {
        if self.identity.is_some() && self.identity == identity_of_stderr() {
            let start = if self.is_in_use { "\r\x1b[K" } else { "" };
            let line = format!("{start}pysamp: {}\n", export::one_line(text));
            // SAFETY: the buffer is valid for its length. Errors are of no consequence.
            unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
        }
    }
}

fn remember_first(identity: (u64, u64)) {
    FIRST_STDERR[0].store(identity.0, Ordering::Relaxed);
    FIRST_STDERR[1].store(identity.1, Ordering::Relaxed);
}

fn identity_of_stderr() -> Option<(u64, u64)> {
    // SAFETY: an all-zero stat is a valid value and valid for writing.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        (libc::fstat(libc::STDERR_FILENO, &mut status) == 0)
            .then_some((status.st_dev, status.st_ino))
    }
}
