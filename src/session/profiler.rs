//! The sampler's thread at work: waits for an interpreter, samples it, and answers commands.
#![allow(unsafe_code)]

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::names::Names;
use super::output::Output;
use super::{SessionError, Shared, command};
use crate::config::Memory as MemoryChoice;
use crate::layout::detect::{self, Unsupported};
use crate::mem::{Address, LiveMemory, Memory};
use crate::os::{clock, process, thread};
use crate::profile::Meta;
use crate::reader::codes::CodeTable;
use crate::reader::self_check::{self, Disagreement, Known};
use crate::reader::threads::{self, PthreadTid};
use crate::recorder::Recorder;
use crate::sampler::park::Parking;
use crate::sampler::schedule::Schedule;
use crate::sampler::snapshot::{Protocol, Snapshotter};
use crate::sampler::{Cycle, Sampler};

/// Waits that are shorter than it takes to fall asleep and be woken.
const TOO_SHORT_TO_SLEEP_NS: u64 = 8_000;

/// How long a process stays after its last thread but the sampler's has ended.
const MOST_DESERTED_NS: u64 = 20_000_000;

pub(super) struct Profiler {
    sampler: Sampler<LiveMemory>,
    recorder: Recorder,
    names: Names,
    start_ns: u64,
    start_unix_ns: u64,
    interval_ns: u64,
    schedule: Schedule,
    instant: u64,
    missed: u64,
    has_signals: bool,
}

/// Waits for an interpreter that runs code and checks that it is what it seems. `None` means that
/// the process ended before.
pub(super) fn prepare(shared: &Shared) -> Result<Option<Profiler>, String> {
    /// Tries to get past a disagreement that may only be a race with the interpreter's start.
    const MOST_DISAGREEMENTS: u32 = 300;
    const SHORT_PAUSE_NS: u64 = 500_000;
    const LONG_PAUSE_NS: u64 = 10_000_000;
    /// Short pauses before long ones: an interpreter that is not there after a second may never be.
    const PATIENT: u32 = 2000;
    /// Pauses between two looks whether anybody is left.
    const DESERTED_PAUSES: u32 = 20;

    let Shared { pid, ref target, .. } = *shared;
    let own_tid = thread::current_tid();
    let memory = LiveMemory::new(own_tid);
    let build = detect::build(&memory, &target.symbols).map_err(|error| error.to_string())?;
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
        if command & command::DUMP != 0 {
            shared.answer_dump(Err(SessionError::NoPython));
        }
        if command & command::ASIDE != 0 {
            shared.clear(command::ASIDE);
        }
        if pauses % DESERTED_PAUSES == 0 && process::is_deserted() {
            return Ok(None);
        }
        if command & command::STOP != 0 {
            // An interpreter that was gone before it could be sampled leaves an empty profile;
            // one that never was (`python --version`) leaves none.
            if !was_alive {
                return Ok(None);
            }
            break target.code_type.unwrap_or(0);
        }
        pauses += 1;
        let pause = if pauses > PATIENT { LONG_PAUSE_NS } else { SHORT_PAUSE_NS };
        thread::futex_wait(&shared.command, command, pause);
    };
    if !memory.begin_cycle() {
        return Err(Unsupported::Unreadable.to_string());
    }
    let protocol = if shared.config.blocking { Protocol::Blocking } else { Protocol::Asynchronous };
    let codes = CodeTable::new(build.layout.clone(), code_type);
    let snapshotter = Snapshotter::new(build.layout.clone(), protocol, codes);
    let interval_ns = shared.config.interval.as_nanos() as u64;
    let sampler = Sampler::new(memory, build, pthread_tid, own_tid, interval_ns, snapshotter);
    let (start_ns, start_unix_ns) = (clock::monotonic_ns(), clock::unix_ns());
    // Of two processes that start at once, each has its own instants.
    let seed = start_unix_ns ^ u64::from(shared.pid).rotate_left(32);
    let mut schedule = Schedule::new(start_ns, interval_ns, seed);
    Ok(Some(Profiler {
        sampler,
        recorder: Recorder::new(),
        names: Names::default(),
        start_ns,
        start_unix_ns,
        interval_ns,
        instant: schedule.next_instant(),
        schedule,
        missed: 0,
        has_signals: false,
    }))
}

impl Profiler {
    /// The profiler goes on in the calling thread.
    pub(super) fn move_here(&mut self) {
        let tid = thread::current_tid();
        self.sampler.move_to(tid);
        self.sampler.memory_mut().move_to(tid);
    }

    /// Where the main thread is; `None` if it runs no Python code.
    pub(super) fn top_frame(&self) -> Option<Address> {
        self.sampler.top_frame(process::pid())
    }

    /// Samples until told to stop or to step aside, or the duration is over, or nobody is left, or
    /// memory cannot be read any more. Goes on where it left off.
    pub(super) fn sample(&mut self, shared: &Shared, output: &Output) -> End {
        let end_ns = shared
            .config
            .duration
            .map_or(u64::MAX, |duration| self.start_ns.saturating_add(duration.as_nanos() as u64));
        let mut look_ns = self.start_ns + MOST_DESERTED_NS;
        loop {
            let instant = self.instant.min(end_ns);
            let command = loop {
                let command = self.sleep(shared, instant.min(look_ns));
                let now = clock::monotonic_ns();
                if now >= look_ns {
                    if process::is_deserted() {
                        return End::Asked;
                    }
                    look_ns = now + MOST_DESERTED_NS;
                }
                if command != 0 || now >= instant {
                    break command;
                }
            };
            if command & command::STOP != 0 {
                return End::Asked;
            }
            if command & command::DUMP != 0 {
                self.dump(shared, output);
                continue;
            }
            if command & command::ASIDE != 0 {
                if self.top_frame().is_some() {
                    return End::Aside;
                }
                shared.clear(command::ASIDE);
                continue;
            }
            if instant == end_ns {
                return End::Asked;
            }
            match self.sampler.cycle(&mut self.recorder) {
                Cycle::Done => {
                    self.recorder.tick(self.missed);
                    self.names.refresh(&self.sampler, &mut self.recorder);
                }
                Cycle::NoInterpreter => {}
                Cycle::Unreadable => return End::Unreadable,
            }
            if !self.has_signals && self.has_started_up() {
                self.take_signals(shared, output);
                self.has_signals = true;
            }
            self.missed = self.schedule.skip_past(clock::monotonic_ns());
            self.instant = self.schedule.next_instant();
        }
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
            if command != 0 || now >= instant {
                return command;
            }
            if instant - now > TOO_SHORT_TO_SLEEP_NS {
                thread::futex_wait(&shared.command, 0, instant - now);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    fn dump(&mut self, shared: &Shared, output: &Output) {
        self.names.refresh_now(&self.sampler, &mut self.recorder);
        let request = shared.dump.lock().map(|request| (request.path.clone(), request.is_last));
        let (path, is_last) = request.unwrap_or_default();
        shared.answer_dump(if is_last {
            self.finish(shared, output, &End::Asked)
        } else {
            output.write(&self.profile(shared), path).map(Some).map_err(SessionError::Output)
        });
    }

    /// Whether to leave nothing: a child that was gone before the first sample, or is on its way to
    /// another program.
    fn is_fleeting(&self, shared: &Shared) -> bool {
        const MOST_NS: u64 = 20_000_000;
        let age = clock::monotonic_ns().saturating_sub(self.start_ns);
        let is_last_dump = shared.is_asked(command::DUMP);
        shared.is_forked && (self.recorder.samples() == 0 || is_last_dump && age < MOST_NS)
    }

    pub(super) fn finish(
        &mut self,
        shared: &Shared,
        output: &Output,
        end: &End,
    ) -> Result<Option<PathBuf>, SessionError> {
        if self.is_fleeting(shared) {
            return Ok(None);
        }
        match end {
            End::Asked | End::Aside => self.names.refresh_now(&self.sampler, &mut self.recorder),
            End::Unreadable => output.stderr.line(
                "sampling ended early: the program has taken SIGSEGV, and process_vm_readv is \
                 forbidden",
            ),
        }
        output.deliver(&self.profile(shared)).map(Some).map_err(SessionError::Output)
    }

    fn profile(&self, shared: &Shared) -> crate::profile::Profile {
        let command = process::command_line();
        let meta = Meta {
            pid: shared.pid,
            program: process::program_name(&command),
            command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            python: self.sampler.build().to_string(),
            start_unix_ns: self.start_unix_ns,
            duration_ns: clock::monotonic_ns().saturating_sub(self.start_ns),
            interval_ns: self.interval_ns,
            ..Meta::default()
        };
        self.recorder.profile(&self.sampler.snapshotter.codes, meta)
    }
}

/// Why sampling ended.
pub(super) enum End {
    Asked,
    /// For a moment only.
    Aside,
    Unreadable,
}
