//! The sampling cycle: at each instant, every thread of every interpreter.

pub mod activity;
pub mod calls;
pub mod contention;
mod contexts;
mod entering;
pub mod greenlets;
pub mod links;
pub mod meeting;
mod mood;
pub mod natives;
mod pace;
pub mod park;
mod resting;
pub mod schedule;
pub mod snapshot;
pub mod target;
pub mod tasks;
pub mod waiting;

use std::collections::HashMap;

use crate::hash::FastHash;
use crate::layout::detect::Build;
use crate::mem::{Address, Memory, field};
use crate::os::clock;
use crate::reader::Torn;
use crate::reader::codes::Located;
use crate::reader::frames::Walker;
use crate::reader::states::{self, Exceptions};
use crate::reader::threads::{
    self, Copies, Head, Listed, PthreadTid, ThreadState, threads_with_copies,
};
use activity::{CpuClock, Spent, State};
use contention::Contention;
use resting::Resting;
use snapshot::{Outcome, Snapshotter};
use target::Target;
use tasks::Shown;
use waiting::Source;

/// Where samples go.
pub trait Sink {
    /// A thread is seen for the first time. Returns the number by which it is named from then on.
    fn thread(&mut self, thread: &ThreadState) -> u32;
    /// A sample of a thread, or several that are alike: its stack, root first, of which the first `unchanged`
    /// frames are as in the sample before, and what it stands for. `truncated` says that older frames than those
    /// in `stack` are missing.
    fn sample(
        &mut self,
        thread: u32,
        stack: &[Located],
        unchanged: usize,
        truncated: bool,
        spent: Spent,
    );
    /// A sample could not be taken right.
    fn failure(&mut self);
    /// A thread is gone.
    fn gone(&mut self, thread: u32);
}

/// How a cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cycle {
    /// All threads were looked at.
    Done,
    /// There is no interpreter, or it is being finalized.
    NoInterpreter,
    /// Memory cannot be read safely any more.
    Unreadable,
}

/// Samples all threads of a runtime.
pub struct Sampler<M> {
    memory: M,
    build: Build,
    pthread_tid: Option<PthreadTid>,
    own_tid: u32,
    interval_ns: u64,
    has_fine_clocks: bool,
    /// Takes the snapshots, and knows the code objects.
    pub snapshotter: Snapshotter,
    tracked: HashMap<(Address, u32), Tracked, FastHash>,
    cycle: u64,
    newest_interpreter: i64,
    interpreters: Vec<Address>,
    threads: Vec<ThreadState>,
    /// The threads of the cycle before.
    listed_before: Vec<ThreadState>,
    /// What was taken of the threads of the cycle before, and what was copied of their states with it.
    taken: Vec<Taken>,
    copied: Vec<Listed>,
    resting: Resting,
    /// The interpreters a thread of which was seen with the GIL in this cycle.
    held: Vec<i64>,
    exceptions: Exceptions,
    contention: Contention,
    /// A stack with what stands on it that is no frame of Python's.
    above: Vec<Located>,
}

/// What was taken of a thread, and when.
#[derive(Clone, Copy)]
struct Taken {
    thread: ThreadState,
    /// How many samples it is.
    count: u64,
    outcome: Outcome,
    now: u64,
    state: State,
    /// When it was last seen to have run, and to wait for the GIL, in nanoseconds on the monotonic
    /// clock.
    moved_ns: u64,
    waited_ns: u64,
    /// Whether it has let go of the GIL only because others want it.
    yields: bool,
}

struct Tracked {
    /// Given at the first sample: a thread state may never run Python code.
    number: Option<u32>,
    target: Target,
    /// Whether it has not run since the sample before.
    stands: bool,
    /// Of samples by task.
    shown: Shown,
    last_ns: u64,
    cpu: CpuClock,
    /// When it was last seen to wait for the GIL.
    waited_ns: u64,
    /// Whether it has let go of the GIL only because others want it.
    yields: bool,
    /// Of the last look.
    state: State,
    outcome: Outcome,
    seen: u64,
}

/// Cycles between two looks for threads that are gone.
const SWEEP: u64 = 512;
/// Below any interpreter's id.
const NONE_YET: i64 = -1;
/// Tries to follow the list of threads while it changes.
const LIST_TRIES: usize = 8;

impl<M: Memory> Sampler<M> {
    /// For a runtime that has passed the self-check. The thread `own_tid` is not sampled.
    pub fn new(
        memory: M,
        build: Build,
        pthread_tid: Option<PthreadTid>,
        own_tid: u32,
        interval_ns: u64,
        snapshotter: Snapshotter,
    ) -> Self {
        Self {
            memory,
            build,
            pthread_tid,
            own_tid,
            interval_ns,
            has_fine_clocks: clock::has_fine_thread_clocks(own_tid),
            snapshotter,
            tracked: HashMap::default(),
            cycle: 0,
            newest_interpreter: NONE_YET,
            interpreters: Vec::new(),
            threads: Vec::new(),
            listed_before: Vec::new(),
            taken: Vec::new(),
            copied: Vec::new(),
            resting: Resting::default(),
            held: Vec::new(),
            exceptions: Exceptions::default(),
            contention: Contention::default(),
            above: Vec::new(),
        }
    }

    /// Samples every thread once.
    ///
    /// The threads are those that the previous cycle has found, and nothing else is read of them
    /// before: a thread waits when it next writes to a cache line that has just been read, and
    /// would be sampled where it waits. The list comes afterwards, and tells which of the samples
    /// are of threads that were still there when their stacks had been read.
    pub fn cycle(&mut self, sink: &mut impl Sink) -> Cycle {
        if !self.memory.begin_cycle() {
            return Cycle::Unreadable;
        }
        self.cycle += 1;
        self.taken.clear();
        self.copied.clear();
        self.held.clear();
        self.let_rest(sink);
        for index in 0..self.threads.len() {
            if !self.resting.has(index) {
                let taken = self.take(self.threads[index]);
                self.taken.push(taken);
            }
        }
        self.contention.mark(&self.memory, &self.build, &mut self.taken);
        let listed = self.list(sink);
        if self.threads != self.listed_before {
            self.record_resting(sink);
            self.resting.follow(&self.threads);
        }
        let mut next = 0;
        for index in 0..self.threads.len() {
            if self.resting.has(index) {
                continue;
            }
            // Threads keep their order.
            let thread = self.threads[index];
            let found = self.taken[next..].iter().position(|taken| taken.thread == thread);
            let taken = match found {
                Some(position) => {
                    next += position + 1;
                    self.taken[next - 1]
                }
                None => {
                    let taken = self.take(thread);
                    // Until its thread has started, a new state bears its creator's ids (up to
                    // 3.11).
                    let ident = self.memory.word(field(thread.at, self.build.layout.thread_id));
                    if ident != Ok(thread.ident) {
                        continue;
                    }
                    taken
                }
            };
            self.record(taken, sink);
        }
        self.find_idle(sink);
        if self.cycle.is_multiple_of(SWEEP) {
            self.sweep(sink);
        }
        listed
    }

    /// Lists the threads that there are now.
    fn list(&mut self, sink: &mut impl Sink) -> Cycle {
        self.listed_before.clone_from(&self.threads);
        if threads::is_finalizing(&self.memory, &self.build) != Ok(false) {
            self.forget(sink);
            return Cycle::NoInterpreter;
        }
        if (0..LIST_TRIES).all(|attempt| self.try_list(attempt == 0).is_err()) {
            sink.failure();
            self.threads.clear();
            return Cycle::Done;
        }
        if self.interpreters.is_empty() {
            self.forget(sink);
            return Cycle::NoInterpreter;
        }
        self.notice_new_interpreters();
        Cycle::Done
    }

    /// Whether a thread was last seen in a program's code rather than in the interpreter's own start:
    /// below a module, or below `runpy`, which starts `-m` and zipped programs.
    pub fn has_started_up(&self) -> bool {
        let accepted = self.tracked.values().filter_map(|tracked| tracked.target.stack.first());
        // Without signals call-dense code may give no certain stack at all.
        let mut roots = accepted.chain(self.snapshotter.last_root());
        roots.any(|root| {
            self.snapshotter.codes.code(root.code).is_some_and(|code| {
                let is_module = &*code.name == "<module>" && !code.file.starts_with("<frozen");
                is_module || &*code.name == "_run_module_as_main"
            })
        })
    }

    /// The sampler goes on in the calling thread.
    pub fn move_to(&mut self, own_tid: u32) {
        self.own_tid = own_tid;
    }

    /// Where the newest frame of a thread lies at the moment; `None` if it runs no Python code.
    pub fn top_frame(&mut self, tid: u32) -> Option<Address> {
        if !self.memory.begin_cycle() {
            return None;
        }
        // A child may fork before it is sampled for the first time.
        if !self.threads.iter().any(|thread| thread.tid == tid) {
            if threads::is_finalizing(&self.memory, &self.build) != Ok(false) {
                return None;
            }
            let listed = self.try_list(false);
            if listed.is_err() {
                self.threads.clear();
            }
            self.resting.follow(&self.threads);
            listed.ok()?;
            self.notice_new_interpreters();
        }
        let layout = &self.build.layout;
        let states = self.threads.iter().filter(|thread| thread.tid == tid);
        let mut tops = states.map(|state| Walker::default().top(&self.memory, layout, state.at));
        tops.find_map(|top| top.ok().filter(|&top| top != 0))
    }

    /// The runtime that is sampled.
    pub fn build(&self) -> &Build {
        &self.build
    }

    /// The memory that is read.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The memory, to change how it is read.
    pub fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// When one of the threads of the last cycle was last seen to have run, on the monotonic clock in nanoseconds;
    /// 0 if none was.
    pub fn moved_ns(&self) -> u64 {
        self.taken.iter().map(|taken| taken.moved_ns).max().unwrap_or(0)
    }

    /// Interpreters and threads as of the last cycle, the threads with their numbers.
    pub fn last_threads(&self) -> (&[Address], impl Iterator<Item = (u32, &ThreadState)>) {
        let numbered = self.threads.iter().filter_map(|thread| {
            Some((self.tracked.get(&(thread.at, thread.tid))?.number?, thread))
        });
        (&self.interpreters, numbered)
    }

    /// Lists all threads, if it may with what was copied of some in this cycle.
    fn try_list(&mut self, may_use_copies: bool) -> Result<(), Torn> {
        let Self { memory, build, pthread_tid, interpreters, threads, listed_before, .. } = self;
        threads::interpreters(memory, build, interpreters)?;
        threads.clear();
        let listed = if may_use_copies { self.copied.as_slice() } else { &[] };
        let copies = Copies { listed, before: listed_before };
        interpreters.iter().try_for_each(|&interpreter| {
            let layout = &build.layout;
            threads_with_copies(memory, layout, *pthread_tid, interpreter, copies, threads)
        })?;
        self.threads.retain(|thread| thread.tid != self.own_tid);
        Ok(())
    }

    /// Each interpreter counts its code objects' versions from the start, and a new one's code may
    /// lie where that of one that is gone was. Interpreters' ids only grow.
    fn notice_new_interpreters(&mut self) {
        let newest = self.threads.iter().map(|thread| thread.interpreter).max();
        if let Some(newest) = newest.filter(|newest| *newest > self.newest_interpreter) {
            self.newest_interpreter = newest;
            // The first one's id is 0.
            self.snapshotter.codes.begin_interpreter(newest == 0);
            if let Some(tasks) = &mut self.snapshotter.tasks {
                tasks.forget();
            }
        }
    }

    /// Makes all threads known anew: the next sample goes to a sink that has seen none of them.
    pub fn introduce_all_again(&mut self) {
        self.resting = Resting::default();
        self.tracked.values_mut().for_each(|tracked| tracked.number = None);
        if self.snapshotter.codes.is_half_full() {
            self.snapshotter.forget_codes();
            self.tracked.clear();
        }
    }

    /// Nothing of a runtime that ends is true of the next one, whose objects may be in its places.
    /// Nor is the time of each thread's last sample after a pause.
    pub fn forget(&mut self, sink: &mut impl Sink) {
        self.record_resting(sink);
        self.resting = Resting::default();
        self.newest_interpreter = NONE_YET;
        if let Some(tasks) = &mut self.snapshotter.tasks {
            tasks.forget();
        }
        self.threads.clear();
        self.tracked.drain().filter_map(|(_, tracked)| tracked.number).for_each(|n| sink.gone(n));
    }

    fn take(&mut self, thread: ThreadState) -> Taken {
        let now = clock::monotonic_ns();
        let interval = self.interval_ns;
        let tracked = self.tracked.entry((thread.at, thread.tid)).or_insert_with(|| Tracked {
            number: None,
            target: Target::default(),
            stands: false,
            shown: Shown::default(),
            last_ns: now.saturating_sub(interval),
            cpu: CpuClock::default(),
            state: State::default(),
            waited_ns: 0,
            yields: false,
            outcome: Outcome::Failed,
            seen: 0,
        });
        tracked.seen = self.cycle;
        // A thread that has not run since its last sample stands where it stood.
        let stands = tracked.cpu.look(thread.tid, now, interval)
            && self.has_fine_clocks
            && tracked.outcome == Outcome::Stack
            && !threads::is_attached(&self.memory, &self.build, thread.at);
        tracked.stands = stands;
        let state = if stands {
            tracked.target.take_again();
            tracked.state.only(State::HAS_EXCEPTION)
        } else {
            let Self { memory, build, snapshotter, exceptions, copied, .. } = self;
            tracked.outcome = snapshotter.take(memory, &thread, &mut tracked.target);
            let head = Head::read(memory, &build.layout, thread.at).ok();
            let head = head.as_ref();
            let has_gil = head.is_some_and(|head| head.is_attached(memory, build, thread.at));
            let state = tracked.cpu.state(thread.tid, has_gil, now);
            tracked.yields = !state.has(State::HAS_GIL)
                && !build.free_threaded
                && tracked.outcome == Outcome::Stack
                && snapshotter.is_at_switch_point(memory, state.has(State::ON_CPU));
            let collection = head
                .filter(|_| has_gil)
                .and_then(|head| states::collection(memory, build, head.interpreter()));
            let state = match collection {
                Some(collection) => state.collecting(collection.generation),
                None => state,
            };
            let has_exception = head.is_some_and(|head| exceptions.has_any(memory, build, head));
            copied.extend(head.map(|head| head.listed(thread.at)));
            state.with(State::HAS_EXCEPTION, has_exception)
        };
        tracked.state = state;
        let (moved_ns, waited_ns) = (tracked.cpu.moved_ns, tracked.waited_ns);
        let (outcome, yields) = (tracked.outcome, tracked.yields);
        Taken { thread, count: 1, outcome, now, state, moved_ns, waited_ns, yields }
    }

    /// Of threads that were looked at one after the other, two may have had the GIL.
    fn is_second_holder(&mut self, interpreter: i64) -> bool {
        if self.build.free_threaded {
            return false;
        }
        let is_second = self.held.contains(&interpreter);
        if !is_second {
            self.held.push(interpreter);
        }
        is_second
    }

    fn record(&mut self, taken: Taken, sink: &mut impl Sink) {
        let Taken { thread, count, outcome, now, mut state, .. } = taken;
        if state.has(State::HAS_GIL) && self.is_second_holder(thread.interpreter) {
            state = state.without(State::HAS_GIL).without_collection();
        }
        let Some(tracked) = self.tracked.get_mut(&(thread.at, thread.tid)) else { return };
        if state.has(State::WAITS_FOR_GIL) {
            tracked.waited_ns = now;
        }
        match outcome {
            Outcome::Stack => {
                let target = &mut tracked.target;
                let number = *tracked.number.get_or_insert_with(|| sink.thread(&thread));
                let cpu_ns = match state.has(State::ON_CPU) {
                    true => std::mem::take(&mut tracked.cpu.unspent_ns),
                    false => 0,
                };
                let wall_ns = now.saturating_sub(tracked.last_ns);
                tracked.last_ns = now;
                let Snapshotter { tasks, natives, .. } = &self.snapshotter;
                let leaf = match natives {
                    None => None,
                    Some(_) => target.callees.leaf(state),
                };
                state = state.with(State::IN_NATIVE, leaf.is_some());
                let spent = Spent { count, at_ns: now, state, wall_ns, cpu_ns };
                let (stack, unchanged, truncated) = match (tasks, natives) {
                    (None, None) => (target.stack.as_slice(), target.unchanged, target.truncated),
                    _ => tracked.shown.compose(target, leaf),
                };
                let collection = match state.has(State::IN_GC) {
                    true => self.snapshotter.codes.garbage_collection(),
                    false => None,
                };
                let stack = match collection {
                    Some(code) => {
                        self.above.clear();
                        self.above.extend_from_slice(stack);
                        self.above.push(Located::new(code, -1));
                        &self.above
                    }
                    None => stack,
                };
                sink.sample(number, stack, unchanged, truncated, spent);
                target.is_recorded = true;
                let waited = Spent { state: State::default(), cpu_ns: 0, ..spent };
                self.record_waiting(&thread, number, waited, sink);
            }
            Outcome::NoFrames => {
                tracked.last_ns = now;
                tracked.cpu.unspent_ns = 0;
            }
            // Its time goes to the next sample.
            Outcome::Failed => sink.failure(),
        }
    }

    /// The tasks that wait of the loop that a thread runs are samples as well, if they are asked for.
    fn record_waiting(
        &mut self,
        thread: &ThreadState,
        number: u32,
        waited: Spent,
        sink: &mut impl Sink,
    ) {
        let Snapshotter { tasks: Some(tasks), codes, .. } = &mut self.snapshotter else { return };
        let Some(tracked) = self.tracked.get_mut(&(thread.at, thread.tid)) else { return };
        let Self { memory, build, threads, cycle, .. } = self;
        let layout = &build.layout;
        let shown = &mut tracked.shown;
        if !(tracked.stands && shown.is_settled) {
            let source = Source { memory, layout, build, threads, cycle: *cycle };
            let read = tasks.waiting(&source, codes, thread, &mut shown.waiting);
            let is_read = read.is_ok() && shown.waiting.failed == 0;
            shown.is_settled = is_read
                && tasks.are_all_found(&shown.waiting)
                && tracked.cpu.is_unmoved(thread.tid);
            if read.is_err() {
                sink.failure();
                return;
            }
        }
        (0..shown.waiting.failed).for_each(|_| sink.failure());
        shown.each_waiting(|stack, unchanged| {
            sink.sample(number, stack, unchanged, false, waited);
        });
    }

    fn sweep(&mut self, sink: &mut impl Sink) {
        let oldest = self.cycle.saturating_sub(SWEEP);
        self.tracked.retain(|_, tracked| {
            let stays = tracked.seen > oldest;
            if let Some(number) = tracked.number.filter(|_| !stays) {
                sink.gone(number);
            }
            stays
        });
    }
}
