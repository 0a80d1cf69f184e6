//! One profile from start to end: owns the sampler's thread, what it records, and the output.
//!
//! All work happens on that thread. Whoever starts, stops or dumps only leaves a command for it
//! and waits for a bounded time, so an exiting or crashing application is never held up for long,
//! and none of its locks is ever needed.
#![allow(unsafe_code)]

mod names;
mod output;

use std::path::PathBuf;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::config::{Config, Memory as MemoryChoice};
use crate::layout::detect::{self, Symbols, Unsupported};
use crate::mem::{LiveMemory, Memory};
use crate::os::{clock, process, shared_file, thread};
use crate::profile::Meta;
use crate::reader::codes::CodeTable;
use crate::reader::self_check::{self, Disagreement, Known};
use crate::reader::threads::{self, PthreadTid};
use crate::recorder::Recorder;
use crate::sampler::park::Parking;
use crate::sampler::schedule::Schedule;
use crate::sampler::snapshot::{Protocol, Snapshotter};
use crate::sampler::{Cycle, Sampler};
use names::Names;
pub use output::{Output, Stderr};

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
    config: Config,
    target: Target,
    /// A [`Command`] for the thread; it sleeps on this word.
    command: AtomicU32,
    /// A [`State`]; callers wait on this word.
    state: AtomicU32,
    /// Held by whoever dumps: one at a time.
    dumping: Mutex<()>,
    dump: Mutex<DumpRequest>,
    /// What became of the profile; there once the session has ended.
    outcome: Mutex<Option<SessionError>>,
}

#[derive(Default)]
struct DumpRequest {
    path: Option<PathBuf>,
    result: Option<Result<(), SessionError>>,
}

mod command {
    pub const NONE: u32 = 0;
    pub const STOP: u32 = 1;
    pub const DUMP: u32 = 2;
}

mod state {
    pub const RUNNING: u32 = 0;
    pub const DUMPED: u32 = 1;
    pub const ENDED: u32 = 2;
}

/// The session of this process. Leaked on purpose: threads of the application may look at it until
/// the very end of the process, when destructors have run.
static CURRENT: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

/// How long an exiting process waits for its profile to be written.
const MOST_WAIT_NS: u64 = 60_000_000_000;

/// Waits that are shorter than it takes to fall asleep and be woken.
const TOO_SHORT_TO_SLEEP_NS: u64 = 8_000;

fn current() -> Option<&'static Shared> {
    // SAFETY: the pointer is null or comes from a leaked `Arc`, which is never freed.
    unsafe { CURRENT.load(Ordering::Acquire).as_ref() }
}

fn active() -> Option<&'static Shared> {
    current().filter(|shared| {
        // A vforked child shares this memory without being this process.
        shared.pid == process::pid() && shared.state.load(Ordering::Acquire) != state::ENDED
    })
}

/// Whether a profile is being taken.
pub fn is_active() -> bool {
    active().is_some()
}

/// What the session is about that this process sees but that is its parent's, if it was running at
/// the fork.
pub fn inherited() -> Option<(Config, Target)> {
    let shared = current().filter(|shared| {
        shared.pid != process::pid() && shared.state.load(Ordering::Acquire) != state::ENDED
    })?;
    Some((shared.config.clone(), shared.target.clone()))
}

/// Says why this Python cannot be profiled.
pub fn decline(config: &Config, reason: &str) {
    match Output::new(config) {
        Ok(output) => output.decline(process::pid(), reason),
        Err(error) => Stderr::now().line(&error.to_string()),
    }
}

/// Forgets the session: it is the parent's, whose sampler thread does not exist in this process.
pub fn forget_after_fork() {
    CURRENT.store(std::ptr::null_mut(), Ordering::Release);
    shared_file::forget_after_fork();
}

/// Starts sampling, as soon as there is an interpreter.
pub fn start(config: Config, target: Target) -> Result<(), SessionError> {
    let before = CURRENT.load(Ordering::Acquire);
    if is_active() {
        return Err(SessionError::AlreadyActive);
    }
    let output = Output::new(&config)?;
    let shared = Arc::new(Shared {
        pid: process::pid(),
        config,
        target,
        command: AtomicU32::new(command::NONE),
        state: AtomicU32::new(state::RUNNING),
        dumping: Mutex::default(),
        dump: Mutex::default(),
        outcome: Mutex::default(),
    });
    let leaked = Arc::into_raw(Arc::clone(&shared)).cast_mut();
    if CURRENT.compare_exchange(before, leaked, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return Err(SessionError::AlreadyActive);
    }
    let for_thread = Arc::clone(&shared);
    thread::spawn("pysamp", move || run(&for_thread, output)).map_err(|error| {
        shared.state.store(state::ENDED, Ordering::Release);
        SessionError::Thread(error)
    })
}

/// Ends sampling and waits until the profile is written.
pub fn stop() -> Result<(), SessionError> {
    let shared = active().ok_or(SessionError::NotActive)?;
    thread::futex_set(&shared.command, command::STOP);
    wait(shared, state::ENDED)?;
    let outcome = shared.outcome.lock().map_err(|_| SessionError::Internal)?.take();
    outcome.map_or(Ok(()), Err)
}

/// Writes what has been sampled so far, to `path` or to the configured place, and goes on.
pub fn dump(path: Option<PathBuf>) -> Result<(), SessionError> {
    let shared = active().ok_or(SessionError::NotActive)?;
    let _one_at_a_time = shared.dumping.lock().map_err(|_| SessionError::Internal)?;
    {
        let mut request = shared.dump.lock().map_err(|_| SessionError::Timeout)?;
        *request = DumpRequest { path, result: None };
    }
    let asked = shared.command.compare_exchange(
        command::NONE,
        command::DUMP,
        Ordering::AcqRel,
        Ordering::Acquire,
    );
    match asked {
        Ok(_) => {}
        Err(command::STOP) => return Err(SessionError::NotActive),
        // An earlier one that was not answered in time.
        Err(_) => return Err(SessionError::Timeout),
    }
    thread::futex_wake(&shared.command);
    wait(shared, state::DUMPED)?;
    let mut request = shared.dump.lock().map_err(|_| SessionError::Timeout)?;
    let result = request.result.take();
    let _ = shared.state.compare_exchange(
        state::DUMPED,
        state::RUNNING,
        Ordering::AcqRel,
        Ordering::Acquire,
    );
    result.unwrap_or(Err(SessionError::NotActive))
}

fn wait(shared: &Shared, wanted: u32) -> Result<(), SessionError> {
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
        thread::futex_wait(&shared.state, now, MOST_WAIT_NS - waited);
    }
}

impl Shared {
    fn answer_dump(&self, result: Result<(), SessionError>) {
        if let Ok(mut request) = self.dump.lock() {
            request.result = Some(result);
        }
        let _ = self.command.compare_exchange(
            command::DUMP,
            command::NONE,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        thread::futex_set(&self.state, state::DUMPED);
    }
}

/// The sampler's thread. A panic ends the profile, never the process.
fn run(shared: &Shared, output: Output) {
    let work = std::panic::AssertUnwindSafe(|| profile(shared, &output));
    let result = std::panic::catch_unwind(work).unwrap_or_else(|_| {
        output.stderr.line(&SessionError::Internal.to_string());
        Err(SessionError::Internal)
    });
    if let Ok(mut outcome) = shared.outcome.lock() {
        *outcome = result.err();
    }
    thread::futex_set(&shared.state, state::ENDED);
}

fn profile(shared: &Shared, output: &Output) -> Result<(), SessionError> {
    thread::set_exact_timers();
    match prepare(shared) {
        Ok(Some(mut profiler)) => {
            let end = profiler.sample(shared, output);
            profiler.finish(shared, output, end)
        }
        Ok(None) => Err(SessionError::NoPython),
        Err(reason) => {
            output.decline(shared.pid, &reason);
            Err(SessionError::Unsupported(reason))
        }
    }
}

struct Profiler {
    sampler: Sampler<LiveMemory>,
    recorder: Recorder,
    names: Names,
    start_ns: u64,
    start_unix_ns: u64,
    interval_ns: u64,
    is_spooled: bool,
}

/// Waits for an interpreter that runs code and checks that it is what it seems. `None` means that
/// the process ended before.
fn prepare(shared: &Shared) -> Result<Option<Profiler>, String> {
    /// Tries to get past a disagreement that may only be a race with the interpreter's start.
    const MOST_DISAGREEMENTS: u32 = 300;
    const SHORT_PAUSE_NS: u64 = 500_000;
    const LONG_PAUSE_NS: u64 = 10_000_000;
    /// Short pauses before long ones: an interpreter that is not there after a second may never be.
    const PATIENT: u32 = 2000;

    let Shared { pid, ref target, .. } = *shared;
    let memory = LiveMemory::new(pid);
    let build = detect::build(&memory, &target.symbols).map_err(|error| error.to_string())?;
    let own_tid = thread::current_tid();
    // SAFETY: pthread_self takes nothing and cannot fail.
    let own_ident = unsafe { libc::pthread_self() } as u64;
    let pthread_tid = match build.layout.thread_native_id {
        Some(_) => None,
        None => PthreadTid::find(&memory, own_ident, own_tid),
    };
    let known = Known { main_tid: pid, code_type: target.code_type, pthread_tid };
    let mut pauses = 0;
    let mut disagreements = 0;
    let mut interpreters = Vec::new();
    let mut was_alive = false;
    let code_type = loop {
        match self_check::check(&memory, &build, &known) {
            Ok(checked) => break checked.code_type,
            Err(Disagreement::NotYet) => disagreements = 0,
            Err(disagreement) => {
                disagreements += 1;
                if disagreements > MOST_DISAGREEMENTS {
                    return Err(format!("{build} is not laid out as expected: {disagreement}"));
                }
            }
        }
        was_alive |= threads::interpreters(&memory, &build, &mut interpreters).is_ok()
            && !interpreters.is_empty();
        let command = shared.command.load(Ordering::Acquire);
        if command == command::DUMP {
            shared.answer_dump(Err(SessionError::NoPython));
        }
        if command == command::STOP {
            // An interpreter that was gone before it could be sampled leaves an empty profile;
            // one that never was (`python --version`) leaves none.
            if !was_alive {
                return Ok(None);
            }
            break target.code_type.unwrap_or(0);
        }
        pauses += 1;
        let pause = if pauses > PATIENT { LONG_PAUSE_NS } else { SHORT_PAUSE_NS };
        thread::futex_wait(&shared.command, command::NONE, pause);
    };
    if !memory.begin_cycle() {
        return Err(Unsupported::Unreadable.to_string());
    }
    let protocol = if shared.config.blocking { Protocol::Blocking } else { Protocol::Asynchronous };
    let codes = CodeTable::new(build.layout.clone(), code_type);
    let snapshotter = Snapshotter::new(build.layout.clone(), protocol, codes);
    let interval_ns = shared.config.interval.as_nanos() as u64;
    let sampler = Sampler::new(memory, build, pthread_tid, own_tid, interval_ns, snapshotter);
    Ok(Some(Profiler {
        sampler,
        recorder: Recorder::new(),
        names: Names::default(),
        start_ns: clock::monotonic_ns(),
        start_unix_ns: clock::unix_ns(),
        interval_ns,
        is_spooled: false,
    }))
}

impl Profiler {
    /// Samples until told to stop, or the duration is over, or memory cannot be read any more.
    fn sample(&mut self, shared: &Shared, output: &Output) -> End {
        let seed = self.start_unix_ns ^ u64::from(shared.pid).rotate_left(32);
        let mut schedule = Schedule::new(self.start_ns, self.interval_ns, seed);
        let end_ns = shared
            .config
            .duration
            .map_or(u64::MAX, |duration| self.start_ns.saturating_add(duration.as_nanos() as u64));
        let mut missed = 0;
        let mut has_signals = false;
        loop {
            let instant = schedule.next_instant().min(end_ns);
            match self.sleep(shared, instant) {
                command::STOP => return End::Asked,
                command::DUMP => {
                    self.dump(shared, output);
                    continue;
                }
                _ => {}
            }
            if instant == end_ns {
                return End::Asked;
            }
            match self.sampler.cycle(&mut self.recorder) {
                Cycle::Done => {
                    self.recorder.tick(missed);
                    self.names.refresh(&self.sampler, &mut self.recorder);
                    self.spool(shared, output);
                }
                Cycle::NoInterpreter => {}
                Cycle::Unreadable => return End::Unreadable,
            }
            if !has_signals && self.has_started_up() {
                self.take_signals(shared, output);
                has_signals = true;
            }
            missed = schedule.skip_past(clock::monotonic_ns());
        }
    }

    /// Keeps what was sampled so far in a file, too. Processes that live for moments make none.
    fn spool(&mut self, shared: &Shared, output: &Output) {
        const NOT_BEFORE_NS: u64 = 100_000_000;
        let elapsed = clock::monotonic_ns().saturating_sub(self.start_ns);
        if !self.is_spooled && elapsed >= NOT_BEFORE_NS && self.recorder.samples() > 0 {
            self.is_spooled = true;
            let meta = self.meta(shared);
            output.begin_recording(&meta, |path| self.recorder.begin_spool(path, &meta));
        }
        self.recorder.update_spool(&self.sampler.snapshotter.codes, elapsed);
    }

    /// A program that embeds Python may never run a module; after a while, any has started up.
    fn has_started_up(&self) -> bool {
        const LONGEST_START_NS: u64 = 1_000_000_000;
        self.sampler.has_started_up() || clock::monotonic_ns() > self.start_ns + LONGEST_START_NS
    }

    /// Installs the signal handlers for guarded loads and for holding threads. Not before the
    /// interpreter has started up: Python's `signal` module looks then which signals have a handler
    /// and would show ours to the program.
    fn take_signals(&mut self, shared: &Shared, output: &Output) {
        self.sampler.snapshotter.allow_holding(Parking::new());
        let choice = shared.config.memory;
        let guarded = choice != MemoryChoice::Syscall && self.sampler.memory().use_guarded_loads();
        if choice == MemoryChoice::Direct && !guarded {
            output.stderr.line(
                "memory=direct needs SIGSEGV and SIGBUS, which the program uses; memory is read by \
                 system call",
            );
        }
    }

    /// Sleeps until an instant or a command. Returns the command.
    fn sleep(&self, shared: &Shared, instant: u64) -> u32 {
        loop {
            let command = shared.command.load(Ordering::Acquire);
            let now = clock::monotonic_ns();
            if command != command::NONE || now >= instant {
                return command;
            }
            if instant - now > TOO_SHORT_TO_SLEEP_NS {
                thread::futex_wait(&shared.command, command::NONE, instant - now);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    fn dump(&mut self, shared: &Shared, output: &Output) {
        self.names.refresh_now(&self.sampler, &mut self.recorder);
        let path = shared.dump.lock().ok().and_then(|request| request.path.clone());
        let written = output.write(&self.profile(shared), path);
        shared.answer_dump(written.map(drop).map_err(SessionError::Output));
    }

    fn finish(&mut self, shared: &Shared, output: &Output, end: End) -> Result<(), SessionError> {
        match end {
            End::Asked => self.names.refresh_now(&self.sampler, &mut self.recorder),
            End::Unreadable => output.stderr.line(
                "sampling ended early: the program has taken SIGSEGV, and process_vm_readv is \
                 forbidden",
            ),
        }
        output
            .deliver(&self.profile(shared), self.recorder.spool_path())
            .map_err(SessionError::Output)?;
        self.recorder.remove_spool();
        Ok(())
    }

    fn profile(&self, shared: &Shared) -> crate::profile::Profile {
        self.recorder.profile(&self.sampler.snapshotter.codes, self.meta(shared))
    }

    fn meta(&self, shared: &Shared) -> Meta {
        let command = process::command_line();
        Meta {
            pid: shared.pid,
            program: process::program_name(&command),
            command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            python: self.sampler.build().to_string(),
            start_unix_ns: self.start_unix_ns,
            duration_ns: clock::monotonic_ns().saturating_sub(self.start_ns),
            interval_ns: self.interval_ns,
            ..Meta::default()
        }
    }
}

/// Why sampling ended.
enum End {
    Asked,
    Unreadable,
}
