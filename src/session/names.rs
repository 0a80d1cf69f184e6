//! Keeps the names of threads up to date, at a cost that is bounded.

use std::collections::HashMap;

use crate::mem::Memory;
use crate::os::{clock, thread};
use crate::reader::thread_names::NameReader;
use crate::reader::threads;
use crate::recorder::Recorder;
use crate::sampler::Sampler;

/// After a new thread: it names itself a little later than it is first seen, or much later when it
/// has to wait for its turn to run, so names are read again and again, after twice the time.
const FIRST_PAUSE_NS: u64 = 2_000_000;
/// Between two looks for threads that were renamed.
const LONGEST_PAUSE_NS: u64 = 500_000_000;
/// Reading takes at most one part in this many of the time.
const PARTS: u64 = 50;

/// When names are read next, and how.
#[derive(Default)]
pub struct Names {
    reader: NameReader,
    known: usize,
    pause_ns: u64,
    due_ns: u64,
    earliest_ns: u64,
}

impl Names {
    /// Names the threads of the last cycle, if at `now`, on the monotonic clock, it is time.
    pub fn refresh(&mut self, sampler: &Sampler<impl Memory>, recorder: &mut Recorder, now: u64) {
        let known = recorder.threads();
        if known != self.known {
            self.known = known;
            self.pause_ns = FIRST_PAUSE_NS;
            self.due_ns = self.due_ns.min(now.saturating_add(FIRST_PAUSE_NS));
        }
        if now >= self.due_ns.max(self.earliest_ns) {
            // Time in which others had the processor is no cost.
            let start_cpu = cpu_ns();
            self.read(sampler, recorder);
            let cost = cpu_ns().saturating_sub(start_cpu);
            let end = clock::monotonic_ns();
            self.earliest_ns = end.saturating_add(cost.saturating_mul(PARTS));
            self.due_ns = end.saturating_add(self.pause_ns);
            self.pause_ns = (self.pause_ns * 2).clamp(FIRST_PAUSE_NS, LONGEST_PAUSE_NS);
        }
    }

    /// Names the threads of the last cycle, if the interpreter can still be read.
    pub fn refresh_now(&mut self, sampler: &Sampler<impl Memory>, recorder: &mut Recorder) {
        let memory = sampler.memory();
        if memory.begin_cycle() && threads::is_finalizing(memory, sampler.build()) == Ok(false) {
            self.read(sampler, recorder);
        }
    }

    fn read(&mut self, sampler: &Sampler<impl Memory>, recorder: &mut Recorder) {
        let memory = sampler.memory();
        let layout = &sampler.build().layout;
        let (interpreters, numbered) = sampler.last_threads();
        let mut names = HashMap::new();
        for &interpreter in interpreters {
            let Ok(id) = memory.word(interpreter + layout.interpreter_id as u64) else { continue };
            // What is torn now is read another time.
            let Ok(found) = self.reader.names(memory, layout, interpreter) else { continue };
            names.extend(found.into_iter().map(|(ident, name)| ((id as i64, ident), name)));
        }
        for (number, thread) in numbered {
            match names.get(&(thread.interpreter, thread.ident)) {
                Some(name) if !name.is_empty() => recorder.name_thread(number, name),
                _ => {}
            }
        }
    }
}

fn cpu_ns() -> u64 {
    clock::thread_cpu_ns(thread::current_tid()).unwrap_or(0)
}
