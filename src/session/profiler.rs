//! The sampler's thread at work: waits for an interpreter, samples it, and answers commands.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering;

use super::names::Names;
use super::output::Output;
use super::{SessionError, Shared, command};
use crate::config::Memory as MemoryChoice;
use crate::layout::detect::{self, Unsupported};
use crate::mem::{LiveMemory, Memory};
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

pub(super) struct Profiler {
    sampler: Sampler<LiveMemory>,
    recorder: Recorder,
    names: Names,
    start_ns: u64,
    start_unix_ns: u64,
    interval_ns: u64,
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
        if command & command::DUMP != 0 {
            shared.answer_dump(Err(SessionError::NoPython));
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
    Ok(Some(Profiler {
        sampler,
        recorder: Recorder::new(),
        names: Names::default(),
        start_ns: clock::monotonic_ns(),
        start_unix_ns: clock::unix_ns(),
        interval_ns,
    }))
}

impl Profiler {
    /// Samples until told to stop, or the duration is over, or memory cannot be read any more.
    pub(super) fn sample(&mut self, shared: &Shared, output: &Output) -> End {
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
            let command = self.sleep(shared, instant);
            if command & command::STOP != 0 {
                return End::Asked;
            }
            if command & command::DUMP != 0 {
                self.dump(shared, output);
                continue;
            }
            if instant == end_ns {
                return End::Asked;
            }
            match self.sampler.cycle(&mut self.recorder) {
                Cycle::Done => {
                    self.recorder.tick(missed);
                    self.names.refresh(&self.sampler, &mut self.recorder);
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
        let path = shared.dump.lock().ok().and_then(|request| request.path.clone());
        let written = output.write(&self.profile(shared), path);
        shared.answer_dump(written.map(drop).map_err(SessionError::Output));
    }

    pub(super) fn finish(
        &mut self,
        shared: &Shared,
        output: &Output,
        end: End,
    ) -> Result<(), SessionError> {
        match end {
            End::Asked => self.names.refresh_now(&self.sampler, &mut self.recorder),
            End::Unreadable => output.stderr.line(
                "sampling ended early: the program has taken SIGSEGV, and process_vm_readv is \
                 forbidden",
            ),
        }
        output.deliver(&self.profile(shared)).map_err(SessionError::Output)
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
    Unreadable,
}
