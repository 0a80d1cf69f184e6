//! The finished, exporter-neutral profile: what was sampled, as flat tables that refer to each other by index.
//!
//! ```text
//! Moment ──> Sample ──> Thread ──> Process
//!              └──────> Stack ──> parent Stack … (root last)
//!                         └─────> Frame ──> Function ──> file, name
//! ```
//!
//! Units: weights and times in nanoseconds, `count` in samples, lines and columns 1-based with 0 for "unknown".

pub mod blocks;
mod filter;
mod merge;
mod mode;
mod numbers;
mod origin;
mod pattern;
pub mod recording;
pub mod timeline;

pub use crate::layout::opcodes::Opcode;
pub use crate::reader::line_table::Location;
pub use crate::sampler::activity::State;
pub use mode::{Mode, View};
pub use numbers::Numbers;
pub use origin::Origin;
pub use pattern::{BadPattern, Pattern};
pub use timeline::{Moment, Timeline};

/// Index into [`Profile::functions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub u32);

/// Index into [`Profile::frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(pub u32);

/// Index into [`Profile::stacks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub u32);

/// Index into [`Profile::threads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadId(pub u32);

/// Index into [`Profile::processes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId(pub u32);

/// A Python function (a code object, by content).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// `co_filename`, as the program has it.
    pub file: Box<str>,
    /// `co_qualname`, or `co_name` before CPython 3.11.
    pub name: Box<str>,
    /// `co_firstlineno`.
    pub first_line: u32,
}

/// A function at one instruction. Where opcodes are recorded, an instruction that was met in several forms
/// is as many frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The function that is executing.
    pub function: FunctionId,
    /// Where in its source.
    pub location: Location,
    /// Index of the instruction in code units (two bytes each); -1 before the first one has run.
    pub instruction: i32,
    /// What it is; `None` unless it was asked for and could be told.
    pub opcode: Option<Opcode>,
}

/// One node of the stack trie: a frame and what called it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// The caller's stack; `None` for a root. Always a smaller index than the node's own.
    pub parent: Option<StackId>,
    /// The frame on top of this stack.
    pub frame: FrameId,
}

/// A process that was sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Process id of the one that has started it; 0 if that is not known.
    pub parent_pid: u32,
    /// Base name of the script or module, else of the executable.
    pub program: String,
    /// The command line.
    pub command: Vec<String>,
    /// Interpreter, such as `CPython 3.13.0 free-threaded`.
    pub python: String,
    /// Start of sampling, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Length of sampling in nanoseconds.
    pub duration_ns: u64,
}

/// A thread that was sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The process it belongs to.
    pub process: ProcessId,
    /// Kernel thread id.
    pub tid: u32,
    /// `threading.Thread.name`; empty where Python knows none.
    pub name: Box<str>,
    /// Whether it is the process's main thread.
    pub is_main: bool,
    /// The interpreter it ran in; 0 is the main interpreter.
    pub interpreter: i64,
}

/// How often, and for how long, one thread was seen in one stack and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The thread.
    pub thread: ThreadId,
    /// Its stack.
    pub stack: StackId,
    /// What it was doing.
    pub state: State,
    /// Number of samples.
    pub count: u64,
    /// Time they stand for, in nanoseconds: each sample weighs the time since the thread's previous one.
    pub weight_ns: u64,
    /// CPU time they stand for, in nanoseconds: each sample on a processor weighs what the thread has used since its
    /// previous one.
    pub cpu_ns: u64,
}

impl Sample {
    /// Adds more of the same.
    pub fn add(&mut self, other: &Sample) {
        self.count = self.count.saturating_add(other.count);
        self.weight_ns = self.weight_ns.saturating_add(other.weight_ns);
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
    }
}

/// What was asked for and how well it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Process id.
    pub pid: u32,
    /// Process id of the one that has started it; 0 if that is not known.
    pub parent_pid: u32,
    /// The program: base name of the script or module, else of the executable.
    pub program: String,
    /// The command line of the process.
    pub command: Vec<String>,
    /// Interpreter, such as `CPython 3.13.0 free-threaded`.
    pub python: String,
    /// Start of sampling, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Length of sampling in nanoseconds; of several processes, the time in which any was sampled.
    pub duration_ns: u64,
    /// Asked-for interval between samples of a thread, in nanoseconds.
    pub interval_ns: u64,
    /// Sampling instants at which the sampler ran.
    pub ticks: u64,
    /// Sampling instants that passed while the sampler was late.
    pub missed: u64,
    /// Samples taken: the sum of all counts.
    pub samples: u64,
    /// Samples that could not be read right and are in no count.
    pub failed: u64,
    /// Whose time counts.
    pub mode: Mode,
}

impl Meta {
    /// The process of a profile of one.
    pub fn process(&self) -> Process {
        Process {
            pid: self.pid,
            parent_pid: self.parent_pid,
            program: self.program.clone(),
            command: self.command.clone(),
            python: self.python.clone(),
            start_unix_ns: self.start_unix_ns,
            duration_ns: self.duration_ns,
        }
    }

    /// Failed samples as a share of those attempted, 0 to 1.
    pub fn failed_share(&self) -> f64 {
        share(self.failed, self.samples)
    }

    /// Missed instants as a share of those due, 0 to 1.
    pub fn missed_share(&self) -> f64 {
        share(self.missed, self.ticks)
    }
}

/// A whole profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// What was asked for and how well it went.
    pub meta: Meta,
    /// Distinct functions.
    pub functions: Vec<Function>,
    /// Distinct frames.
    pub frames: Vec<Frame>,
    /// Distinct stacks, parents before children.
    pub stacks: Vec<Stack>,
    /// Processes.
    pub processes: Vec<Process>,
    /// Threads seen, in order of first sight.
    pub threads: Vec<Thread>,
    /// What was counted; at most one entry for each thread, stack and state.
    pub samples: Vec<Sample>,
    /// When it was; see [`moments`](Self::moments).
    pub timeline: Timeline,
}

impl Profile {
    /// How often each process was sampled a second, on average.
    pub fn rate_hz(&self) -> f64 {
        let sampled_ns: u64 =
            self.processes.iter().map(|process| process.duration_ns).fold(0, u64::saturating_add);
        if sampled_ns == 0 { 0.0 } else { self.meta.ticks as f64 * 1e9 / sampled_ns as f64 }
    }

    /// When the last process was sampled last, in nanoseconds since the Unix epoch.
    pub fn end_unix_ns(&self) -> u64 {
        let ends = self.processes.iter();
        let ends = ends.map(|process| process.start_unix_ns.saturating_add(process.duration_ns));
        ends.max().unwrap_or(self.meta.start_unix_ns)
    }

    /// The frames of a stack, leaf first.
    pub fn leaf_first(&self, stack: StackId) -> impl Iterator<Item = FrameId> + '_ {
        let mut next = Some(stack);
        std::iter::from_fn(move || {
            let node = self.stacks.get(next?.0 as usize)?;
            next = node.parent;
            Some(node.frame)
        })
    }

    /// The frames of a stack, root first.
    pub fn root_first(&self, stack: StackId) -> Vec<FrameId> {
        let mut frames: Vec<FrameId> = self.leaf_first(stack).collect();
        frames.reverse();
        frames
    }

    /// A frame by id. Ids come from this profile's own tables.
    pub fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id.0 as usize]
    }

    /// The function of a frame.
    pub fn function(&self, id: FrameId) -> &Function {
        &self.functions[self.frame(id).function.0 as usize]
    }

    /// Whether it tells of instructions.
    pub fn has_opcodes(&self) -> bool {
        self.frames.iter().any(|frame| frame.opcode.is_some())
    }

    /// The process of a thread.
    pub fn process(&self, thread: &Thread) -> &Process {
        &self.processes[thread.process.0 as usize]
    }

    /// A thread by id.
    pub fn thread(&self, id: ThreadId) -> &Thread {
        &self.threads[id.0 as usize]
    }
}

fn share(part: u64, rest: u64) -> f64 {
    // A damaged recording can hold any numbers, whose sum would overflow.
    let whole = part as f64 + rest as f64;
    if whole == 0.0 { 0.0 } else { part as f64 / whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_any_numbers_are_shares() {
        let share_of = |failed, samples| Meta { failed, samples, ..Meta::default() }.failed_share();
        assert_eq!([share_of(0, 0), share_of(1, 3), share_of(2, 0)], [0.0, 0.25, 1.0]);
        assert_eq!(share_of(u64::MAX, u64::MAX), 0.5);
    }
}
