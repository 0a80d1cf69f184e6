//! The sampler's thread at work: waits for an interpreter, samples it, and answers commands.
#![allow(unsafe_code)]

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::governor::Governor;
use super::names::Names;
use super::output::{Output, Place};
use super::{SessionError, Shared, command, control};
use crate::config::{Config, Memory as MemoryChoice, Perf};
use crate::layout::detect::{self, Unsupported};
use crate::mem::{Address, LiveMemory, Memory};
use crate::os::{clock, process, thread};
use crate::profile::{Meta, Profile};
use crate::reader::codes::{CodeTable, Located};
use crate::reader::self_check::{self, Disagreement, Known};
use crate::reader::threads::{self, PthreadTid, ThreadState};
use crate::recorder::Recorder;
use crate::sampler::activity::Spent;
use crate::sampler::natives::Natives;
use crate::sampler::park::Parking;
use crate::sampler::schedule::Schedule;
use crate::sampler::snapshot::{Protocol, Snapshotter};
use crate::sampler::tasks::Tasks;
use crate::sampler::{Cycle, Sampler, Sink};
use crate::trampoline::{self, Refusal};

/// Waits that are shorter than it takes to fall asleep and be woken.
const TOO_SHORT_TO_SLEEP_NS: u64 = 8_000;

/// Between two looks whether the process has been left by all its threads but the sampler's, which keeps it.
const DESERTED_NS: u64 = 20_000_000;

pub(super) struct Profiler {
    sampler: Sampler<LiveMemory>,
    recorder: Recorder,
    names: Names,
    interval_ns: u64,
    /// When the interpreter was found.
    found_ns: u64,
    /// When what is recorded began.
    start_ns: u64,
    start_unix_ns: u64,
    schedule: Schedule,
    governor: Option<Governor>,
    has_slowed_down: bool,
    /// When the next sample is due.
    instant: u64,
    /// Instants before it for which the sampler was late.
    missed: u64,
    /// When sampling ends, and when the next profile begins.
    end_ns: u64,
    cut_ns: u64,
    /// When to look next whether the process has been left by all others.
    look_ns: u64,
    is_spooled: bool,
    has_signals: bool,
    /// Whether sampling has yet to begin, or to begin again.
    is_waiting: bool,
    /// Trampolines that are still to be asked for.
    wanted_perf: Option<Perf>,
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
        let command = shared.command.load(Ordering::Acquire);
        if command & command::DUMP != 0 {
            shared.answer_dump(Err(SessionError::NoPython));
        }
        if command & command::ASIDE != 0 {
            shared.done(command::ASIDE);
        }
        if pauses % DESERTED_PAUSES == DESERTED_PAUSES - 1 && process::is_deserted() {
            return Ok(None);
        }
        if command & command::STOP != 0 {
            // An interpreter that was gone before it could be sampled leaves an empty profile;
            // one that never was (`python --version`) leaves none.
            if !threads::has_had_interpreters(&memory, &build) {
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
    let mut codes = CodeTable::new(build.layout.clone(), code_type);
    if shared.config.opcodes {
        codes.tell_opcodes(build.version);
    }
    let mut snapshotter = Snapshotter::new(build.clone(), protocol, codes);
    snapshotter.tasks = shared.config.async_mode.map(Tasks::new);
    snapshotter.natives = shared.config.native.then(Natives::default);
    let interval_ns = shared.config.interval.as_nanos() as u64;
    let sampler = Sampler::new(memory, build, pthread_tid, own_tid, interval_ns, snapshotter);
    let now = clock::monotonic_ns();
    Ok(Some(Profiler {
        sampler,
        recorder: Recorder::new(now),
        names: Names::default(),
        interval_ns,
        found_ns: now,
        start_ns: now,
        start_unix_ns: clock::unix_ns(),
        schedule: Schedule::new(now, interval_ns, 0),
        governor: None,
        has_slowed_down: false,
        instant: now,
        missed: 0,
        end_ns: u64::MAX,
        cut_ns: u64::MAX,
        look_ns: now + DESERTED_NS,
        is_spooled: false,
        has_signals: false,
        is_waiting: true,
        // A child that was forked has its parent's.
        wanted_perf: shared.config.perf.filter(|_| !trampoline::has_begun()),
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
    pub(super) fn top_frame(&mut self) -> Option<Address> {
        self.sampler.top_frame(process::pid())
    }

    /// Samples until there is an end, and goes on where it left off.
    pub(super) fn work(&mut self, shared: &Shared, output: &mut Output) -> End {
        let begin_ns = match shared.config.paused {
            true => u64::MAX,
            false => after(self.found_ns, shared.config.delay.unwrap_or_default()),
        };
        loop {
            if self.is_waiting {
                if let Some(end) = self.wait(shared, output, begin_ns) {
                    return end;
                }
                self.begin_anew(shared);
            }
            if let Some(end) = self.sample(shared, output) {
                return end;
            }
            self.is_waiting = true;
        }
    }

    /// Waits for an instant, or for the control signal. Returns why to end, if there is a reason.
    fn wait(&mut self, shared: &Shared, output: &mut Output, until_ns: u64) -> Option<End> {
        /// Between two looks whether the interpreter has started up.
        const LOOK_NS: u64 = 10_000_000;
        loop {
            let now = clock::monotonic_ns();
            if now >= until_ns || shared.done(command::SIGNAL) {
                return None;
            }
            let look_ns = if self.has_signals { u64::MAX } else { now + LOOK_NS };
            if let Err(end) = self.rest(shared, output, until_ns.min(look_ns)) {
                return Some(end);
            }
            if !self.has_signals {
                if self.sampler.cycle(&mut Nowhere) == Cycle::Unreadable {
                    return Some(End::Unreadable);
                }
                self.take_signals_in_time(shared, output);
            }
        }
    }

    /// Samples until there is reason to wait. Returns why to end, if there is a reason.
    fn sample(&mut self, shared: &Shared, output: &mut Output) -> Option<End> {
        let Config { rotate, paused, .. } = shared.config;
        loop {
            let instant = self.instant.min(self.end_ns).min(self.cut_ns);
            let now = match self.rest(shared, output, instant) {
                Ok(now) => now,
                Err(end) => return Some(end),
            };
            if now >= self.end_ns && !paused {
                return Some(End::Asked);
            }
            if shared.done(command::SIGNAL) || now >= self.end_ns {
                let profile = self.profile_now(shared);
                let written = output.write_and_say(&profile, Place::Numbered, None);
                if paused {
                    if written.is_ok() {
                        self.remove_spool();
                    }
                    return None;
                }
                if rotate.is_some() && written.is_ok() {
                    self.begin_next();
                    self.cut_ns = never_or(rotate, self.start_ns);
                }
                continue;
            }
            if now >= self.cut_ns {
                // What could not be written is in the next.
                if output.write_quietly(&self.profile_now(shared)).is_ok() {
                    self.begin_next();
                }
                self.cut_ns = never_or(rotate, now);
                continue;
            }
            match self.sampler.cycle(&mut self.recorder) {
                Cycle::Done => {
                    let now = clock::monotonic_ns();
                    self.recorder.tick(self.missed);
                    self.names.refresh(&self.sampler, &mut self.recorder, now);
                    self.spool(shared, output, now);
                }
                Cycle::NoInterpreter => {}
                Cycle::Unreadable => return Some(End::Unreadable),
            }
            self.take_signals_in_time(shared, output);
            self.keep_within_limits(output);
            self.missed = self.schedule.skip_past(clock::monotonic_ns());
            self.instant = self.schedule.next_instant();
        }
    }

    /// Sleeps until an instant or the control signal, and does what is asked for meanwhile. Returns
    /// when it was then, on the monotonic clock in nanoseconds, or why to end, if there is a reason.
    fn rest(&mut self, shared: &Shared, output: &mut Output, instant: u64) -> Result<u64, End> {
        loop {
            let perf_ns = self.tend_trampolines(shared, output);
            // A sample that comes soon is not preceded by a look: to wake up costs more than to look.
            let is_soon = instant.saturating_sub(self.look_ns) < DESERTED_NS;
            let look_ns = if is_soon { instant } else { self.look_ns };
            let now = self.sleep(shared, instant.min(look_ns).min(perf_ns));
            if now >= self.look_ns {
                let has_run = self.sampler.moved_ns() > now.saturating_sub(DESERTED_NS);
                if !has_run && process::is_deserted() {
                    return Err(End::Asked);
                }
                self.look_ns = now + DESERTED_NS;
            }
            if shared.is_asked(command::STOP) {
                return Err(End::Asked);
            }
            if shared.is_asked(command::DUMP) {
                self.dump(shared, output);
                continue;
            }
            if shared.is_asked(command::ASIDE) {
                if self.top_frame().is_some() {
                    return Err(End::Aside);
                }
                shared.done(command::ASIDE);
            }
            if now >= instant || shared.is_asked(command::SIGNAL) {
                return Ok(now);
            }
        }
    }

    /// Asks for trampolines until the interpreter takes it up, and says what went wrong with them.
    /// Returns when to be back: the program's first module is to be among the functions.
    fn tend_trampolines(&mut self, shared: &Shared, output: &Output) -> u64 {
        const PAUSE_NS: u64 = 300_000;
        let Shared { target, .. } = shared;
        if let Some(backend) = self.wanted_perf {
            match trampoline::activate_early(&target.symbols, target.code_type, backend) {
                Err(Refusal::Busy | Refusal::NoPython) => {}
                outcome => {
                    self.wanted_perf = None;
                    if let Err(refusal) = outcome {
                        output.stderr.line(&format!("perf: {refusal}"));
                    }
                }
            }
        }
        trampoline::tend();
        if let Some(complaint) = trampoline::complaint() {
            output.stderr.line(&format!("perf: {complaint}"));
        }
        self.wanted_perf.map_or(u64::MAX, |_| clock::monotonic_ns() + PAUSE_NS)
    }

    /// Begins to record after a wait, in which everything may have changed.
    fn begin_anew(&mut self, shared: &Shared) {
        self.sampler.forget(&mut self.recorder);
        self.begin_next();
        self.is_waiting = false;
        // Of two processes that start at once, each has its own instants.
        let seed = self.start_unix_ns ^ u64::from(shared.pid).rotate_left(32);
        self.schedule = Schedule::new(self.start_ns, self.interval_ns, seed);
        self.instant = self.schedule.next_instant();
        self.governor = shared.config.max_overhead.map(|most| {
            let used_ns = clock::thread_cpu_ns(thread::current_tid()).unwrap_or(0);
            Governor::new(f64::from(most) / 10_000.0, self.interval_ns, self.start_ns, used_ns)
        });
        self.missed = 0;
        self.end_ns = never_or(shared.config.duration, self.start_ns);
        self.cut_ns = never_or(shared.config.rotate, self.start_ns);
    }

    /// Begins to record the next profile.
    fn begin_next(&mut self) {
        self.sampler.introduce_all_again();
        self.remove_spool();
        self.start_ns = clock::monotonic_ns();
        self.recorder = Recorder::new(self.start_ns);
        self.names = Names::default();
        self.start_unix_ns = clock::unix_ns();
    }

    /// What was recorded so far is elsewhere; what comes is recorded anew.
    fn remove_spool(&mut self) {
        self.recorder.remove_spool();
        self.is_spooled = false;
    }

    /// Keeps what was sampled so far in a file, too. Processes that live for moments make none, nor do
    /// those that may be another program the next moment: it would be left.
    fn spool(&mut self, shared: &Shared, output: &Output, now: u64) {
        const NOT_BEFORE_NS: u64 = 100_000_000;
        let elapsed = now.saturating_sub(self.start_ns);
        let is_wanted = !self.is_spooled && !shared.is_leaving.load(Ordering::SeqCst);
        if is_wanted && elapsed >= NOT_BEFORE_NS && self.recorder.samples() > 0 {
            self.is_spooled = true;
            let meta = self.meta(shared);
            output.begin_recording(&meta, |path| self.recorder.begin_spool(path, &meta));
        }
        self.recorder.update_spool(&self.sampler.snapshotter.codes, elapsed);
    }

    /// Samples less often where that costs more than is allowed, and says so once.
    fn keep_within_limits(&mut self, output: &Output) {
        let Some(governor) = &mut self.governor else { return };
        let used_ns = || clock::thread_cpu_ns(thread::current_tid());
        let Some(interval_ns) = governor.after_cycle(clock::monotonic_ns(), used_ns) else {
            return;
        };
        self.schedule.set_interval(interval_ns);
        if !self.has_slowed_down && interval_ns > self.interval_ns {
            self.has_slowed_down = true;
            let hz = |ns: u64| 1e9 / ns as f64;
            output.stderr.line(&format!(
                "sampling {:.0} times a second costs more than max-overhead allows; it goes on with \
                 about {:.0}",
                hz(self.interval_ns),
                hz(interval_ns)
            ));
        }
    }

    /// A program that embeds Python may never run a module; after a while, any has started up.
    fn has_started_up(&self) -> bool {
        const LONGEST_START_NS: u64 = 1_000_000_000;
        self.sampler.has_started_up() || clock::monotonic_ns() > self.found_ns + LONGEST_START_NS
    }

    /// Installs the signal handlers for guarded loads, for holding threads and for control. Not
    /// before the interpreter has started up: Python's `signal` module looks then which signals have
    /// a handler and would show ours to the program.
    fn take_signals_in_time(&mut self, shared: &Shared, output: &Output) {
        if self.has_signals || !self.has_started_up() {
            return;
        }
        self.has_signals = true;
        self.sampler.snapshotter.allow_holding(Parking::new());
        let choice = shared.config.memory;
        let guarded = choice != MemoryChoice::Syscall && self.sampler.memory().use_guarded_loads();
        if choice == MemoryChoice::Direct && !guarded {
            output.stderr.line(
                "memory=direct needs SIGSEGV and SIGBUS, which the program uses; memory is read by \
                 system call",
            );
        }
        if let Some(signal) = shared.config.control
            && !control::take(signal)
        {
            let name = signal.name();
            output.stderr.line(&format!("the program uses {name}, which controls nothing then"));
        }
    }

    /// Sleeps until an instant or a command. Returns when it was then.
    fn sleep(&self, shared: &Shared, instant: u64) -> u64 {
        loop {
            let now = clock::monotonic_ns();
            if shared.command.load(Ordering::Acquire) != 0 || now >= instant {
                return now;
            }
            if instant - now > TOO_SHORT_TO_SLEEP_NS {
                thread::futex_wait(&shared.command, 0, instant - now);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    fn dump(&mut self, shared: &Shared, output: &mut Output) {
        let request = shared.dump.lock().map(|request| (request.path.clone(), request.is_last));
        let (path, is_last) = request.unwrap_or_default();
        shared.answer_dump(if is_last {
            self.finish(shared, output, &End::Asked)
        } else {
            let place = path.map_or(Place::Usual, Place::File);
            let written = output.write(&self.profile_now(shared), place);
            written.map_err(SessionError::Output)
        });
    }

    /// Whether to leave nothing: a child that was gone before the first sample, or is on its way to
    /// another program. On a busy machine it may wait long for its turns.
    fn is_fleeting(&self, shared: &Shared) -> bool {
        const MOST_CPU_NS: u64 = 20_000_000;
        const MOST_NS: u64 = 10 * MOST_CPU_NS;
        let age = clock::monotonic_ns().saturating_sub(self.start_ns);
        let is_brief =
            || age < MOST_CPU_NS || age < MOST_NS && clock::process_cpu_ns() < MOST_CPU_NS;
        let is_last_dump = shared.is_asked(command::DUMP);
        shared.is_forked && (self.recorder.samples() == 0 || is_last_dump && is_brief())
    }

    pub(super) fn finish(
        &mut self,
        shared: &Shared,
        output: &mut Output,
        end: &End,
    ) -> Result<Vec<PathBuf>, SessionError> {
        if self.is_fleeting(shared) {
            self.remove_spool();
            return Ok(Vec::new());
        }
        let tasks = self.sampler.snapshotter.tasks.as_ref();
        if let Some(complaint) = tasks.and_then(Tasks::complaint) {
            output.stderr.line(complaint);
        }
        if let End::Unreadable = end {
            output.stderr.line(
                "sampling ended early: the program has taken SIGSEGV, and process_vm_readv is \
                 forbidden",
            );
        }
        if self.is_waiting && shared.config.paused {
            output.end_without_profile(shared.pid);
            return Ok(Vec::new());
        }
        if !self.is_waiting {
            let late = self.schedule.skip_past(clock::monotonic_ns());
            self.recorder.miss(std::mem::take(&mut self.missed) + late);
        }
        let profile = match end {
            End::Unreadable => self.profile(shared),
            End::Asked | End::Aside => self.profile_now(shared),
        };
        let delivered = output.deliver(&profile, self.recorder.spool_path());
        let paths = delivered.map_err(SessionError::Output)?;
        self.remove_spool();
        Ok(paths)
    }

    /// The profile so far, with the names that threads have by now.
    fn profile_now(&mut self, shared: &Shared) -> Profile {
        self.names.refresh_now(&self.sampler, &mut self.recorder);
        self.profile(shared)
    }

    fn profile(&mut self, shared: &Shared) -> Profile {
        self.sampler.record_resting(&mut self.recorder);
        self.recorder.profile(&self.sampler.snapshotter.codes, self.meta(shared))
    }

    fn meta(&self, shared: &Shared) -> Meta {
        let command = process::command_line();
        Meta {
            pid: shared.pid,
            parent_pid: process::parent_pid(),
            program: process::program_name(command),
            command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            python: self.sampler.build().to_string(),
            start_unix_ns: self.start_unix_ns,
            duration_ns: match self.is_waiting {
                true => 0,
                false => clock::monotonic_ns().saturating_sub(self.start_ns),
            },
            interval_ns: self.interval_ns,
            ..Meta::default()
        }
    }
}

/// Why sampling ended.
pub(super) enum End {
    Asked,
    /// For a moment only.
    Aside,
    Unreadable,
}

fn never_or(time: Option<Duration>, from_ns: u64) -> u64 {
    time.map_or(u64::MAX, |time| after(from_ns, time))
}

fn after(instant_ns: u64, time: Duration) -> u64 {
    instant_ns.saturating_add(time.as_nanos() as u64)
}

/// For samples that only tell what the program is doing.
struct Nowhere;

impl Sink for Nowhere {
    fn thread(&mut self, _: &ThreadState) -> u32 {
        0
    }
    fn sample(&mut self, _: u32, _: &[Located], _: usize, _: bool, _: Spent) {}
    fn failure(&mut self) {}
    fn gone(&mut self, _: u32) {}
}
