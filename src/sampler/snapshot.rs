//! One thread's stack at one moment, right or counted as failed.
//!
//! The protocol, from cheap to certain:
//!
//! 1. Walk the frames while the thread runs. If every link of the stack is known, it is accepted. So
//!    it is if the interpreter itself knows the others: the caller's instruction is specialised for
//!    calls of the very function that the callee runs. Where it depends on the callers what is
//!    called, that is not enough.
//! 2. Otherwise walk once more. If nothing has changed, the stack was not mixed: it is accepted and
//!    its links are learned. Threads off the processor always end here.
//! 3. Otherwise, if frames returned during the walk, their callers are put back to their calls, or
//!    made the top if they were called anew.
//! 4. Otherwise the thread is held still and its frames are read then.
//!
//! Step 4 is rare in most code, as programs have few distinct links. Where it is not (before 3.11 a
//! frame that has returned cannot be read any more), asynchronous reading is not only failing but
//! biased, since short frames fail most; then the thread is held still for every sample until a
//! later trial goes better. So no decision depends on what a single sample shows.
//!
//! A thread that makes system calls all the time is met at those when it is held, so it is not if it lets go of its
//! interpreter on the way: it is read again, and held for every sample only if that is rare.

use super::calls::{Body, Frames};
use super::entering::Read;
use super::links::{KnownLinks, common_places, common_prefix};
use super::natives::{self, Natives};
use super::pace::{is_running, is_same_moment, wait_apart};
use super::park::Parking;
use super::target::Target;
use super::tasks::{Seen, Tasks};
use crate::layout::detect::Build;
use crate::mem::{Memory, field};
use crate::os::clock;
use crate::reader::Torn;
use crate::reader::bytecode::{instruction_index, opcode_of};
use crate::reader::codes::{CodeId, CodeTable, Located};
use crate::reader::frame::RawFrame;
use crate::reader::frames::{Walk, Walker};
use crate::reader::greenlets::Moment;
use crate::reader::threads::{self, ThreadState};

/// How running threads are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// While they run, holding them only where that is needed.
    Asynchronous,
    /// Always held still.
    Blocking,
}

/// What a snapshot gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The thread's stack is in [`Target::stack`].
    Stack,
    /// The thread runs no Python code.
    NoFrames,
    /// No certain stack could be read.
    Failed,
}

/// Tries, each a moment later, before a sample has failed; more where threads cannot be held.
const TRIES: usize = 4;
const TRIES_WITHOUT_HOLDING: usize = 16;
/// The moment between tries.
const MOMENT_NS: u64 = 20_000;

/// What a thread showed before its frames were read, where tasks are looked for.
#[derive(Clone, Copy, Debug, Default)]
struct Begin {
    /// Its CPU clock, in nanoseconds.
    cpu: Option<u64>,
    greenlets: Option<Moment>,
}

/// Takes snapshots; one for all threads.
pub struct Snapshotter {
    build: Build,
    protocol: Protocol,
    parking: Option<Parking>,
    /// Code objects seen so far.
    pub codes: CodeTable,
    /// Looks for the tasks that threads run, if that is asked for.
    pub tasks: Option<Tasks>,
    /// Looks for the C code that threads run, if that is asked for.
    pub natives: Option<Natives>,
    links: KnownLinks,
    /// Whether a held thread is taken that came late, as no other try is left, or one has done so before.
    may_skid: bool,
    raw: Vec<RawFrame>,
    raw_again: Vec<RawFrame>,
    bodies: Vec<Body>,
    stack: Vec<Located>,
    stack_before: Vec<Located>,
}

impl Snapshotter {
    /// For an interpreter of this build. Until threads may be held, step 4 fails.
    pub fn new(build: Build, protocol: Protocol, codes: CodeTable) -> Self {
        Self {
            build,
            protocol,
            parking: None,
            codes,
            tasks: None,
            natives: None,
            links: KnownLinks::default(),
            may_skid: true,
            raw: Vec::with_capacity(1024),
            raw_again: Vec::with_capacity(1024),
            bodies: Vec::with_capacity(1024),
            stack: Vec::with_capacity(1024),
            stack_before: Vec::with_capacity(1024),
        }
    }

    /// From now on, threads may be held still.
    pub fn allow_holding(&mut self, parking: Option<Parking>) {
        self.parking = parking;
    }

    /// Lets go of all code objects and what was learned of them.
    pub fn forget_codes(&mut self) {
        self.codes.clear();
        if let Some(tasks) = &mut self.tasks {
            tasks.forget_codes();
        }
        if let Some(natives) = &mut self.natives {
            natives.forget();
        }
        self.links = KnownLinks::default();
        self.stack.clear();
    }

    /// The oldest frame that was looked at last, whether its stack was accepted or not.
    pub fn last_root(&self) -> Option<&Located> {
        self.stack.first()
    }

    /// Takes one thread's stack into `target`.
    pub fn take(
        &mut self,
        memory: &impl Memory,
        thread: &ThreadState,
        target: &mut Target,
    ) -> Outcome {
        let is_blocking = self.protocol == Protocol::Blocking;
        let hold = is_blocking || !target.skids.are_many() && target.mood.holds_once_more();
        if self.natives.is_some() {
            target.walker.reach = natives::REACH;
        }
        let can_hold = self.can_hold(thread.tid);
        self.may_skid = is_blocking;
        let tries = if can_hold { TRIES } else { TRIES_WITHOUT_HOLDING };
        for attempt in 0..tries {
            target.callees.is_known = false;
            if attempt > 0 {
                // Whatever was half done in the thread may be done then.
                clock::sleep_until(clock::monotonic_ns() + MOMENT_NS);
            }
            self.may_skid |= attempt + 1 == tries;
            // Of a try that came to nothing, the task is of another moment.
            target.chain.is_known = false;
            let Ok(begin) = self.begin(memory, thread) else { continue };
            let result = if hold && can_hold && self.moves(memory, thread) {
                self.held(memory, thread, target)
            } else {
                self.running(memory, thread, target, hold)
            };
            let result = result.and_then(|outcome| match outcome {
                Outcome::Stack => {
                    self.find_natives(memory, thread, target);
                    let outcome = self.find_task(memory, thread, target, hold, begin);
                    // Its frames may have been read anew.
                    self.find_natives(memory, thread, target);
                    outcome
                }
                other => Ok(other),
            });
            if let Ok(outcome) = result {
                return outcome;
            }
        }
        Outcome::Failed
    }

    /// Whether the thread that was read last had come to where it lets go of the GIL only because others
    /// want it. `is_on_cpu` says whether it is on a processor.
    pub fn is_at_switch_point(&self, memory: &impl Memory, is_on_cpu: bool) -> bool {
        let opcode = self.raw.first().and_then(|newest| opcode_of(memory, &self.build, newest));
        opcode.is_some_and(|opcode| {
            opcode.is_switch_point() || is_on_cpu && opcode.is_switch_point_on_cpu()
        })
    }

    /// What is compared afterwards where tasks are looked for.
    fn begin(&mut self, memory: &impl Memory, thread: &ThreadState) -> Result<Begin, Torn> {
        let Some(tasks) = &mut self.tasks else { return Ok(Begin::default()) };
        Ok(Begin {
            cpu: clock::thread_cpu_ns(thread.tid),
            greenlets: tasks.moment(memory, &self.build.layout, thread)?,
        })
    }

    fn can_hold(&self, tid: u32) -> bool {
        self.parking.as_ref().is_some_and(|parking| parking.may_come(tid))
    }

    /// Steps 1 to 4.
    fn running(
        &mut self,
        memory: &impl Memory,
        thread: &ThreadState,
        target: &mut Target,
        held_anyway: bool,
    ) -> Result<Outcome, Torn> {
        let first = self.walk(memory, thread, &mut target.walker);
        if first.is_ok() && self.raw.is_empty() {
            return Ok(Outcome::NoFrames);
        }
        let truncated = first.is_ok_and(|walk| walk.truncated);
        let (reads, newcomers) = (self.codes.reads(), self.codes.newcomers());
        let mut is_readable = first.is_ok() && self.resolve(memory).is_ok();
        let are_known = self.codes.reads() == reads;
        let are_old = self.codes.newcomers() == newcomers;
        let mut is_stale = false;
        if is_readable {
            let unchanged = common_places(&self.stack, &target.stack);
            let from = unchanged.max(usize::from(truncated));
            let mut is_certain = self.links.know(&self.stack, from);
            if !is_certain {
                // A code object that is met for the first time may be half made or half gone.
                is_readable = are_known || self.resolves_to_the_same(memory);
                is_certain = is_readable && self.prove(memory, &target.walker, from, are_old);
            }
            is_stale = self.may_be_stale(memory, &target.walker);
            if is_certain && !is_stale {
                target.mood.judge(false, true);
                if are_old && !truncated && !held_anyway {
                    self.enter(memory, target);
                }
                return Ok(self.accept_now(memory, target, truncated));
            }
        }
        let again = self.walk_again(memory, thread, &mut target.walker);
        if is_readable && first == again && is_same_moment(&self.raw, &self.raw_again) {
            // A stack that is cut off from its callers (a generator that was just suspended) looks
            // the same twice in a row. Roots are few: a new one must be certain.
            let is_certain = truncated
                || !self.can_hold(thread.tid)
                || self.stack.first().is_some_and(|root| self.links.has(None, root.code))
                || !self.moves(memory, thread);
            if is_certain && self.resolves_to_the_same(memory) {
                self.learn(memory, &target.walker, !truncated);
                return Ok(self.accept_now(memory, target, truncated));
            }
        } else if is_readable && !is_stale && self.mend(memory, &target.walker) {
            target.mood.judge(false, true);
            return Ok(self.accept_now(memory, target, truncated));
        }
        // New code troubles samples, too, but each only once.
        if !held_anyway && are_known {
            target.mood.judge(true, self.build.layout.has_data_stack());
        }
        if !self.moves(memory, thread) {
            // It has just lost its processor and stands still, for the next try.
            return Err(Torn);
        }
        self.held(memory, thread, target)
    }

    /// Finds the C code in the accepted stack.
    fn find_natives(&mut self, memory: &impl Memory, thread: &ThreadState, target: &mut Target) {
        let Self { natives: Some(natives), codes, raw, bodies, build, .. } = self else { return };
        if target.callees.is_known {
            return;
        }
        let Target { stack, walker, callees, .. } = target;
        let seen = natives::Seen { thread: thread.at, raw, bodies, stack };
        natives.look(memory, build, codes, walker, &seen, callees);
    }

    /// Finds the task that the accepted stack is in. A thread that has run since its CPU clock showed
    /// `begin` may have gone on to another one; it is held then, and its frames are read anew.
    fn find_task(
        &mut self,
        memory: &impl Memory,
        thread: &ThreadState,
        target: &mut Target,
        held_anyway: bool,
        begin: Begin,
    ) -> Result<Outcome, Torn> {
        if self.tasks.is_none() || target.chain.is_known {
            return Ok(Outcome::Stack);
        }
        if self.look(memory, thread, target, begin).is_ok() {
            return Ok(Outcome::Stack);
        }
        if !held_anyway {
            target.mood.judge(true, self.build.layout.has_data_stack());
        }
        if !self.moves(memory, thread) {
            return Err(Torn);
        }
        let begin = self.begin(memory, thread)?;
        let outcome = self.held(memory, thread, target)?;
        if outcome == Outcome::Stack && !target.chain.is_known {
            // It stood still by itself.
            self.look(memory, thread, target, begin)?;
        }
        Ok(outcome)
    }

    /// Looks for the task of the accepted stack, whose thread's CPU clock showed `begin` before.
    fn look(
        &mut self,
        memory: &impl Memory,
        thread: &ThreadState,
        target: &mut Target,
        begin: Begin,
    ) -> Result<(), Torn> {
        let Self { tasks, codes, raw, bodies, build, .. } = self;
        let is_still = || begin.cpu.is_some() && clock::thread_cpu_ns(thread.tid) == begin.cpu;
        let seen = Seen {
            thread: thread.at,
            greenlets: begin.greenlets,
            raw,
            bodies,
            stack: &target.stack,
            truncated: target.truncated,
        };
        tasks.as_mut().map_or(Ok(()), |tasks| {
            tasks.look(memory, &build.layout, codes, &seen, is_still, &mut target.chain)
        })
    }

    /// The thread is held still while its frames are read.
    fn held(
        &mut self,
        memory: &impl Memory,
        thread: &ThreadState,
        target: &mut Target,
    ) -> Result<Outcome, Torn> {
        target.callees.is_known = false;
        if let Some(outcome) = self.still(memory, thread, target) {
            return Ok(outcome);
        }
        if !threads::is_attached(memory, &self.build, thread.at) {
            return Err(Torn);
        }
        let parked =
            self.parking.as_ref().and_then(|parking| parking.park(thread.tid)).ok_or(Torn)?;
        let begin = self.begin(memory, thread);
        let walk = self.walk(memory, thread, &mut target.walker);
        let resolved = walk.and_then(|walk| self.resolve(memory).map(|()| walk)).and_then(|walk| {
            let greenlets = begin?.greenlets;
            self.read_opcodes(memory);
            let Self { tasks, codes, raw, bodies, stack, build, .. } = self;
            tasks.as_mut().map_or(Ok(()), |tasks| {
                let truncated = walk.truncated;
                let seen = Seen { thread: thread.at, greenlets, raw, bodies, stack, truncated };
                let chain = &mut target.chain;
                tasks.look(memory, &build.layout, codes, &seen, || true, chain)
            })
        });
        if let (true, Some(natives)) = (resolved.is_ok(), &mut self.natives) {
            let Self { codes, raw, bodies, stack, build, .. } = self;
            let seen = natives::Seen { thread: thread.at, raw, bodies, stack };
            let Target { walker, callees, .. } = &mut *target;
            natives.look(memory, build, codes, walker, &seen, callees);
        }
        let has_skidded = !threads::is_attached(memory, &self.build, thread.at);
        // The one that was stopped may have left its thread state to another.
        let ident = memory.word(field(thread.at, self.build.layout.thread_id));
        if !parked.release() || ident != Ok(thread.ident) {
            return Err(Torn);
        }
        let walk = walk?;
        if self.raw.is_empty() {
            return Ok(Outcome::NoFrames);
        }
        resolved?;
        self.learn(memory, &target.walker, !walk.truncated);
        target.skids.note(has_skidded);
        if has_skidded && !self.may_skid {
            // Each signal may cut a system call short.
            self.may_skid = true;
            return Err(Torn);
        }
        Ok(self.accept(target, walk.truncated))
    }

    /// A thread whose frames stay as they are for microseconds is in a C function, which may be
    /// about to make a system call: a signal would cut a long `write` short, and what Python's
    /// unbuffered output then loses is the application's.
    fn still(
        &mut self,
        memory: &impl Memory,
        thread: &ThreadState,
        target: &mut Target,
    ) -> Option<Outcome> {
        let layout = &self.build.layout;
        // What is read is taken from the thread's cache: most that move show it by this alone.
        let top = target.walker.top(memory, layout, thread.at).ok()?;
        wait_apart();
        if target.walker.top(memory, layout, thread.at) != Ok(top) {
            return None;
        }
        let first = self.walk(memory, thread, &mut target.walker).ok()?;
        if !self.stays(memory, thread, target, first) || self.resolve(memory).is_err() {
            return None;
        }
        if !self.stays(memory, thread, target, first) || !self.resolves_to_the_same(memory) {
            return None;
        }
        if self.raw.is_empty() {
            return Some(Outcome::NoFrames);
        }
        self.learn(memory, &target.walker, !first.truncated);
        Some(self.accept_now(memory, target, first.truncated))
    }

    /// Whether the frames are, a moment later, still those of the walk that ended as `first`.
    fn stays(
        &mut self,
        memory: &impl Memory,
        thread: &ThreadState,
        target: &mut Target,
        first: Walk,
    ) -> bool {
        wait_apart();
        let again = self.walk_again(memory, thread, &mut target.walker);
        again == Ok(first) && self.raw == self.raw_again
    }

    /// Reads the frames into `raw`, but for the interpreter's own.
    fn walk(
        &mut self,
        memory: &impl Memory,
        thread: &ThreadState,
        walker: &mut Walker,
    ) -> Result<Walk, Torn> {
        let walk = walker.walk(memory, &self.build.layout, thread.at, &mut self.raw);
        self.raw.retain(|frame| !self.codes.is_interpreters(memory, frame.code));
        walk
    }

    /// As [`walk`](Self::walk), into `raw_again`.
    fn walk_again(
        &mut self,
        memory: &impl Memory,
        thread: &ThreadState,
        walker: &mut Walker,
    ) -> Result<Walk, Torn> {
        std::mem::swap(&mut self.raw, &mut self.raw_again);
        let walk = self.walk(memory, thread, walker);
        std::mem::swap(&mut self.raw, &mut self.raw_again);
        walk
    }

    /// The stack that [`resolve`](Self::resolve) found is certain.
    fn learn(&mut self, memory: &impl Memory, walker: &Walker, has_root: bool) {
        let Self { links, stack, raw, bodies, build, .. } = self;
        links.learn(
            stack,
            has_root,
            &Frames { memory, layout: &build.layout, walker, raw, bodies },
        );
    }

    fn prove(&mut self, memory: &impl Memory, walker: &Walker, from: usize, are_old: bool) -> bool {
        let Self { links, stack, raw, bodies, build, .. } = self;
        let frames = Frames { memory, layout: &build.layout, walker, raw, bodies };
        links.prove(stack, from, are_old, &frames)
    }

    fn may_be_stale(&mut self, memory: &impl Memory, walker: &Walker) -> bool {
        let Self { links, stack, raw, bodies, build, .. } = self;
        let contexts = &mut links.contexts;
        contexts.may_be_stale(stack, &Frames { memory, layout: &build.layout, walker, raw, bodies })
            || walker.was_interrupted() && contexts.matter(stack)
    }

    fn mend(&mut self, memory: &impl Memory, walker: &Walker) -> bool {
        let Self { links, stack, raw, bodies, build, .. } = self;
        links.mend(stack, &Frames { memory, layout: &build.layout, walker, raw, bodies })
    }

    /// A frame that is being entered is put on top of a stack that is certain.
    fn enter(&mut self, memory: &impl Memory, target: &mut Target) {
        let Self { links, codes, stack, raw, bodies, build, .. } = self;
        let Target { entering, walker, .. } = target;
        let frames = Read { raw, bodies, stack };
        entering.enter(memory, &build.layout, codes, links, walker, frames);
    }

    /// Accepts a stack that was read a moment ago; its code may be gone.
    fn accept_now(
        &mut self,
        memory: &impl Memory,
        target: &mut Target,
        truncated: bool,
    ) -> Outcome {
        self.read_opcodes(memory);
        self.accept(target, truncated)
    }

    /// Looks which instructions the frames are at, if that is asked for. Those of code that is not
    /// found to be still there stay unknown: that is no reason to reject the stack.
    fn read_opcodes(&mut self, memory: &impl Memory) {
        let Self { codes, stack, bodies, raw, .. } = self;
        if !codes.tells_opcodes() {
            return;
        }
        for ((frame, body), raw) in stack.iter_mut().zip(&*bodies).zip(raw.iter().rev()) {
            frame.opcode = codes.opcode(memory, body.code, raw.bytecode, *frame);
        }
    }

    fn accept(&mut self, target: &mut Target, truncated: bool) -> Outcome {
        let unchanged = match truncated == target.truncated {
            true => common_prefix(&self.stack, &target.stack),
            false => 0,
        };
        target.unchanged = match target.is_recorded {
            true => unchanged,
            false => unchanged.min(target.unchanged),
        };
        target.is_recorded = false;
        target.truncated = truncated;
        std::mem::swap(&mut self.stack, &mut target.stack);
        Outcome::Stack
    }

    /// Whether a thread may be running Python code on a processor. One that is in a system call is
    /// never sent a signal.
    fn moves(&self, memory: &impl Memory, thread: &ThreadState) -> bool {
        is_running(thread.tid) && threads::is_attached(memory, &self.build, thread.at)
    }

    /// Whether the frames' code objects are still those that [`resolve`](Self::resolve) found
    /// before: dead ones leave their places to others.
    fn resolves_to_the_same(&mut self, memory: &impl Memory) -> bool {
        std::mem::swap(&mut self.stack, &mut self.stack_before);
        self.resolve(memory).is_ok() && self.stack == self.stack_before
    }

    /// Turns the raw frames into code objects and instructions, root first.
    fn resolve(&mut self, memory: &impl Memory) -> Result<(), Torn> {
        self.stack.clear();
        self.bodies.clear();
        // Recursion meets the same one again and again.
        let mut last = None;
        for frame in self.raw.iter().rev() {
            // A frame that has just returned may have lost its code (3.14 on), but not its place
            // in it.
            let code = match frame.code {
                0 => self.codes.at_instruction(memory, frame.instruction).ok_or(Torn)?,
                code => code,
            };
            let frame = &RawFrame { code, ..*frame };
            let proven = match last {
                Some((at, proven)) if at == code => proven,
                _ => self.codes.resolve(memory, code)?,
            };
            last = Some((code, proven));
            if proven.id == CodeId::INTERPRETERS {
                // Seen for the first time; the next walk leaves it out.
                return Err(Torn);
            }
            let index = instruction_index(memory, &self.build.layout, frame)?;
            if index < -1 || index >= i64::from(proven.units) {
                return Err(Torn);
            }
            self.stack.push(Located::new(proven.id, index as i32));
            self.bodies.push(Body::new(code, proven));
        }
        Ok(())
    }
}
