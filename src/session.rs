//! One profile from start to end: owns the sampler's thread, what it records, and the output.
//!
//! All work happens on that thread. Whoever starts, stops or dumps only leaves a command for it
//! and waits for a bounded time, so an exiting or crashing application is never held up for long,
//! and none of its locks is ever needed.
#![allow(unsafe_code)]

mod aside;
mod control;
mod files;
mod governor;
mod names;
mod output;
mod profiler;
mod stderr;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::config::Config;
use crate::layout::detect::Symbols;
use crate::os::{clock, descriptors, process, shared_file, thread};
use aside::Work;
pub use aside::{come_back, step_aside};
pub use files::replace as replace_file;
pub use output::{Output, counts, is_directory};
use profiler::{End, Profiler};
pub use stderr::Stderr;

/// Why a session cannot be started or used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is one already.
    #[error("a profile is being taken already")]
    AlreadyActive,
    /// There is none.
    #[error("no profile is being taken")]
    NotActive,
    /// There is no Python code whose profile this could be.
    #[error("no Python code has run yet")]
    NoPython,
    /// This Python cannot be profiled.
    #[error("{0}")]
    Unsupported(String),
    /// The output could not be written where it should go.
    #[error("{0}")]
    Output(String),
    /// The thread could not be started.
    #[error("the sampling thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// The thread does not answer.
    #[error("the sampling thread does not answer")]
    Timeout,
    /// The thread is gone without having ended, as where a seccomp filter kills it.
    #[error(
        "the sampling thread was killed, as by a seccomp filter; a recording is all that can be left"
    )]
    Killed,
    /// A panic ended it.
    #[error("an internal error ended the profile; the program runs on")]
    Internal,
}

/// What the session needs to know of the process beyond its configuration.
#[derive(Clone, Debug)]
pub struct Target {
    /// The interpreter's symbols.
    pub symbols: Symbols,
    /// Address of `PyCode_Type`, where it is exported.
    pub code_type: Option<u64>,
}

/// What callers and the sampler's thread share.
struct Shared {
    pid: u32,
    /// Whether the process began by a fork, in the middle of its parent's program.
    is_forked: bool,
    /// How many threads are looking at it: it stays.
    looking: AtomicU32,
    /// The sampler's thread; 0 while there is none.
    sampler_tid: AtomicU32,
    config: Config,
    target: Target,
    /// Whether another program may take this one's place at any moment.
    is_leaving: AtomicBool,
    /// What the thread is asked for, in bits; it sleeps on this word.
    command: AtomicU32,
    /// One of [`state`]; callers wait on this word.
    state: AtomicU32,
    /// Held by whoever dumps: one at a time.
    dumping: Mutex<()>,
    dump: Mutex<DumpRequest>,
    /// Here while no thread is at it.
    aside: Mutex<Option<Work>>,
    /// What became of the profile; there once the session has ended.
    outcome: Mutex<Option<SessionError>>,
}

#[derive(Default)]
struct DumpRequest {
    path: Option<PathBuf>,
    /// Whether it is, most probably, the end.
    is_last: bool,
    result: Option<Result<Vec<PathBuf>, SessionError>>,
}

/// What a session is asked for; several may be asked at once.
mod command {
    pub const STOP: u32 = 1;
    pub const DUMP: u32 = 2;
    pub const SIGNAL: u32 = 4;
    pub const ASIDE: u32 = 8;
}

mod state {
    pub const RUNNING: u32 = 0;
    pub const DUMPED: u32 = 1;
    pub const ENDED: u32 = 2;
    /// There is no thread for the moment.
    pub const ASIDE: u32 = 3;
}

/// The last session of this process, kept after its end: threads of the application may look at it
/// until the very end of the process, when destructors have run.
static CURRENT: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

/// How many threads have begun to look at [`CURRENT`] and are not counted there yet.
static TURNING: AtomicU32 = AtomicU32::new(0);

/// Sessions before the last one, at which somebody may still be looking.
static REPLACED: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

/// Held by whoever starts a session.
static STARTING: AtomicBool = AtomicBool::new(false);

/// How long an exiting process waits for its profile to be written.
const MOST_WAIT_NS: u64 = 60_000_000_000;

/// Lets `look` see the last session. Async-signal-safe, if that is.
fn with_current<T>(look: impl FnOnce(&Shared) -> T) -> Option<T> {
    struct Looking<'a>(&'a Shared);
    impl Drop for Looking<'_> {
        fn drop(&mut self) {
            self.0.looking.fetch_sub(1, Ordering::SeqCst);
        }
    }
    TURNING.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the pointer is null or comes from `Arc::into_raw`, and `replace_current` drops only
    // sessions at which nobody is looking, while nobody is turning to one.
    let current = unsafe { CURRENT.load(Ordering::SeqCst).as_ref() };
    let looking = current.map(|shared| {
        shared.looking.fetch_add(1, Ordering::SeqCst);
        Looking(shared)
    });
    TURNING.fetch_sub(1, Ordering::SeqCst);
    looking.map(|looking| look(looking.0))
}

/// Lets `work` use the session, if it has not ended.
fn with_active<T>(
    work: impl FnOnce(&Shared) -> Result<T, SessionError>,
) -> Result<T, SessionError> {
    let active = |shared: &Shared| match shared.is_active() {
        true => work(shared),
        false => Err(SessionError::NotActive),
    };
    with_current(active).unwrap_or(Err(SessionError::NotActive))
}

/// Whether a profile is being taken.
pub fn is_active() -> bool {
    with_current(Shared::is_active).unwrap_or(false)
}

/// What the session is about that this process sees but that is its parent's, if it was running at
/// the fork.
pub fn inherited() -> Option<(Config, Target)> {
    with_current(|shared| {
        let is_inherited = shared.pid != process::pid() && !shared.has_ended();
        is_inherited.then(|| (shared.config.clone(), shared.target.clone()))
    })?
}

/// Says why this Python cannot be profiled.
pub fn decline(config: &Config, reason: &str) {
    match Output::new(config) {
        Ok(output) => output.decline(process::pid(), reason),
        Err(error) => Stderr::now().line(&error.to_string()),
    }
}

/// Forgets the session: it is the parent's, whose threads do not exist in this process.
pub fn forget_after_fork() {
    CURRENT.store(std::ptr::null_mut(), Ordering::SeqCst);
    TURNING.store(0, Ordering::SeqCst);
    STARTING.store(false, Ordering::SeqCst);
    shared_file::forget_after_fork();
    descriptors::forget_after_fork();
}

/// Starts sampling, as soon as there is an interpreter.
pub fn start(config: Config, target: Target) -> Result<(), SessionError> {
    start_as(config, target, false)
}

/// As [`start`], in a child that was forked a moment ago.
pub fn start_in_fork(config: Config, target: Target) -> Result<(), SessionError> {
    start_as(config, target, true)
}

fn start_as(config: Config, target: Target, is_forked: bool) -> Result<(), SessionError> {
    /// Ends with the start, also where that panics.
    struct Starting;
    impl Drop for Starting {
        fn drop(&mut self) {
            STARTING.store(false, Ordering::SeqCst);
        }
    }
    if STARTING.swap(true, Ordering::SeqCst) {
        return Err(SessionError::AlreadyActive);
    }
    let _starting = Starting;
    start_alone(config, target, is_forked)
}

fn start_alone(config: Config, target: Target, is_forked: bool) -> Result<(), SessionError> {
    if is_active() {
        return Err(SessionError::AlreadyActive);
    }
    // Read here, no child has to: the kernel is slow to clear what was seen of threads in `/proc`
    // where they and their process end at once, and what a child opens may be in its way.
    process::command_line();
    descriptors::leave_alone();
    let output = Output::new(&config)?;
    let shared = Arc::new(Shared {
        pid: process::pid(),
        is_forked,
        looking: AtomicU32::new(0),
        sampler_tid: AtomicU32::new(0),
        config,
        target,
        is_leaving: AtomicBool::new(false),
        command: AtomicU32::new(0),
        state: AtomicU32::new(state::RUNNING),
        dumping: Mutex::default(),
        dump: Mutex::default(),
        aside: Mutex::default(),
        outcome: Mutex::default(),
    });
    replace_current(Arc::clone(&shared));
    *shared.aside.lock().map_err(|_| SessionError::Internal)? = Some(Work::new(output));
    aside::spawn(&shared).map_err(|error| {
        shared.state.store(state::ENDED, Ordering::Release);
        SessionError::Thread(error)
    })
}

/// The session before is dropped now, or with a later one: as soon as nobody looks at it.
fn replace_current(shared: Arc<Shared>) {
    let before = CURRENT.swap(Arc::into_raw(shared).cast_mut(), Ordering::SeqCst);
    // Only starts lock it, one at a time; if one was cut short by a fork, sessions are kept.
    let Ok(mut replaced) = REPLACED.try_lock() else { return };
    if !before.is_null() {
        // SAFETY: it comes from `Arc::into_raw`, and was taken out of the only place that kept it.
        replaced.push(unsafe { Arc::from_raw(before) });
    }
    // Whoever turns to a session from now on sees the new one.
    if TURNING.load(Ordering::SeqCst) == 0 {
        replaced.retain(|session| session.looking.load(Ordering::SeqCst) > 0);
    }
}

/// Ends sampling and waits until the profile is written.
pub fn stop() -> Result<(), SessionError> {
    with_active(|shared| {
        if shared.sampler_tid.load(Ordering::Relaxed) == thread::current_tid() {
            return Err(SessionError::Internal);
        }
        shared.ask(command::STOP);
        if !shared.ensure_thread() {
            shared.take_up();
        }
        wait(shared, state::ENDED)?;
        let outcome = shared.outcome.lock().map_err(|_| SessionError::Internal)?.take();
        outcome.map_or(Ok(()), Err)
    })
}

/// Writes what has been sampled so far, to `path` or to the configured place, and goes on.
pub fn dump(path: Option<PathBuf>) -> Result<(), SessionError> {
    request_dump(DumpRequest { path, is_last: false, result: None }).map(drop)
}

/// Writes the profile before another program takes this one's place. Returns what is to be taken
/// back should that fail.
pub fn before_exec() -> Vec<PathBuf> {
    with_current(|shared| shared.is_leaving.store(true, Ordering::SeqCst));
    request_dump(DumpRequest { path: None, is_last: true, result: None }).unwrap_or_default()
}

/// The program stays after all: removes what was written for nothing.
pub fn take_back(written: &[PathBuf]) {
    with_current(|shared| shared.is_leaving.store(false, Ordering::SeqCst));
    written.iter().for_each(|path| files::remove(path));
}

fn request_dump(wanted: DumpRequest) -> Result<Vec<PathBuf>, SessionError> {
    with_active(|shared| {
        let _one_at_a_time = shared.dumping.lock().map_err(|_| SessionError::Internal)?;
        if shared.is_asked(command::DUMP) {
            // An earlier one was not answered in time, or will not be.
            return Err(match shared.has_ended() {
                true => SessionError::NotActive,
                false => SessionError::Timeout,
            });
        }
        shared.forget_answer();
        *shared.dump.lock().map_err(|_| SessionError::Timeout)? = wanted;
        if !shared.ensure_thread() {
            return Err(SessionError::Timeout);
        }
        shared.ask(command::DUMP);
        wait(shared, state::DUMPED)?;
        shared.forget_answer();
        let mut request = shared.dump.lock().map_err(|_| SessionError::Timeout)?;
        request.result.take().unwrap_or(Err(SessionError::NotActive))
    })
}

fn wait(shared: &Shared, wanted: u32) -> Result<(), SessionError> {
    /// Between two looks whether there is anybody to wait for.
    const LOOK_NS: u64 = 50_000_000;
    let start = clock::monotonic_ns();
    loop {
        let now = shared.state.load(Ordering::Acquire);
        if now == wanted || now == state::ENDED {
            return Ok(());
        }
        let waited = clock::monotonic_ns().saturating_sub(start);
        if waited >= MOST_WAIT_NS {
            return Err(SessionError::Timeout);
        }
        thread::futex_wait(&shared.state, now, LOOK_NS.min(MOST_WAIT_NS - waited));
        if shared.is_thread_gone() && shared.replace_state(now, state::ENDED) {
            return Err(SessionError::Killed);
        }
    }
}

impl Shared {
    /// Whether the thread that should be at work does not exist.
    fn is_thread_gone(&self) -> bool {
        let tid = self.sampler_tid.load(Ordering::Relaxed);
        tid != 0 && !thread::send_signal(self.pid, tid, 0)
    }

    fn has_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == state::ENDED
    }

    /// A vforked child shares this memory without being this process.
    fn is_active(&self) -> bool {
        self.pid == process::pid() && !self.has_ended()
    }

    /// Asks the thread for something. Async-signal-safe.
    fn ask(&self, command: u32) {
        self.command.fetch_or(command, Ordering::SeqCst);
        thread::futex_wake(&self.command);
    }

    fn is_asked(&self, command: u32) -> bool {
        self.command.load(Ordering::Acquire) & command != 0
    }

    /// Notes that what was asked for is done, or no longer wished for. Returns whether it was.
    fn done(&self, command: u32) -> bool {
        let before = self.command.fetch_and(!command, Ordering::SeqCst);
        let was_asked = before & command != 0;
        if was_asked {
            thread::futex_wake(&self.command);
        }
        was_asked
    }

    fn replace_state(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn answer_dump(&self, result: Result<Vec<PathBuf>, SessionError>) {
        if let Ok(mut request) = self.dump.lock() {
            request.result = Some(result);
        }
        self.done(command::DUMP);
        let _ = self.state.compare_exchange(
            state::RUNNING,
            state::DUMPED,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        thread::futex_wake(&self.state);
    }

    fn forget_answer(&self) {
        let _ = self.state.compare_exchange(
            state::DUMPED,
            state::RUNNING,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }
}

/// The sampler's thread. A panic ends the profile, never the process.
fn run(shared: &Shared, work: Work) {
    shared.sampler_tid.store(thread::current_tid(), Ordering::Relaxed);
    let Work { mut output, profiler, .. } = work;
    let attempt = std::panic::AssertUnwindSafe(|| profile(shared, &mut output, profiler));
    let result = std::panic::catch_unwind(attempt).unwrap_or_else(|_| {
        output.stderr.line(&SessionError::Internal.to_string());
        Err(SessionError::Internal)
    });
    let result = match result {
        Ok(Some(profiler)) => return aside::leave(shared, output, profiler),
        result => result,
    };
    if let Ok(mut outcome) = shared.outcome.lock() {
        *outcome = result.err();
    }
    thread::futex_set(&shared.state, state::ENDED);
}

/// Returns the profiler if it is to go on later.
fn profile(
    shared: &Shared,
    output: &mut Output,
    profiler: Option<Profiler>,
) -> Result<Option<Profiler>, SessionError> {
    thread::set_exact_timers();
    let profiler = match profiler {
        Some(profiler) => Ok(Some(profiler)),
        None => profiler::prepare(shared),
    };
    match profiler {
        Ok(Some(mut profiler)) => {
            profiler.move_here();
            match profiler.work(shared, output) {
                End::Aside => Ok(Some(profiler)),
                end => profiler.finish(shared, output, &end).map(|_| None),
            }
        }
        Ok(None) => Err(SessionError::NoPython),
        Err(reason) => {
            output.decline(shared.pid, &reason);
            Err(SessionError::Unsupported(reason))
        }
    }
}
