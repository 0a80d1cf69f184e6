//! What CPython 3.15's tests of its own sampling profiler assert of it holds here, on every version,
//! for the very programs that they sample.

use std::collections::HashMap;
use std::fs;

use crate::support::{Cores, Interpreter, Stack, command, ensure, on_each, profile, supported};

/// Seconds for which each program is sampled.
const SECONDS: &str = "0.4";

/// The programs, by what they are there to show.
fn programs() -> HashMap<String, String> {
    let newest = |one: &&Interpreter| one.minor() == (3, 15) && !one.free_threaded && !one.debug;
    let newest = supported().iter().find(newest).expect("there is no 3.15");
    let printed = command(newest, "anchor_scripts.py", &[]).output().unwrap();
    let printed_errors = String::from_utf8_lossy(&printed.stderr);
    serde_json::from_slice(&printed.stdout).unwrap_or_else(|_| panic!("{printed_errors}"))
}

/// Samples of one program.
struct Sampled(Vec<Stack>);

impl Sampled {
    fn counts(&self, has: impl Fn(&Stack) -> bool) -> u64 {
        self.0.iter().filter(|stack| has(stack)).map(|stack| stack.count).sum()
    }

    fn all(&self) -> u64 {
        self.counts(|_| true)
    }

    fn of(&self, function: &str) -> u64 {
        self.counts(|stack| stack.frames.iter().any(|frame| frame.name == function))
    }

    fn shows(&self, functions: &[&str]) -> Result<(), String> {
        functions.iter().try_for_each(|function| {
            ensure(self.of(function) > 0, || format!("no {function} in {} samples", self.all()))
        })
    }

    fn hides(&self, function: &str) -> Result<(), String> {
        let (of, all) = (self.of(function), self.all());
        ensure(of == 0, || format!("{of} of {all} samples are below {function}"))
    }
}

/// Samples each of the programs on each version.
fn on_each_program(
    check: impl Fn(&dyn Fn(&str, &str) -> Result<Sampled, String>) -> Result<(), String> + Sync,
) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in programs() {
        fs::write(directory.path().join(name), text).unwrap();
    }
    on_each(Cores::one, |python| {
        check(&|name, options| {
            let file = directory.path().join(name);
            let arguments = [file.to_str().unwrap_or_default(), SECONDS];
            let run = profile(python, "anchor_scripts.py", &arguments, options)?;
            ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
            // Not the thread that ends the program.
            let is_its =
                |stack: &Stack| stack.frames.iter().all(|frame| frame.name != "Socket.end");
            let sampled = Sampled(run.collapsed.into_iter().filter(is_its).collect());
            ensure(sampled.all() > 10, || format!("{} samples of {name}", sampled.all()))?;
            Ok(sampled)
        })
    });
}

#[test]
fn modes_show_the_threads_they_are_for() {
    on_each_program(|sample| {
        let wall = sample("cpu", "mode=wall")?;
        wall.shows(&["cpu_active_worker", "idle_worker"])?;
        let cpu = sample("cpu", "mode=cpu")?;
        cpu.shows(&["cpu_active_worker"])?;
        // It runs only until it sleeps.
        let (idle, all) = (cpu.of("idle_worker"), cpu.all());
        ensure(idle * 100 <= all, || format!("{idle} of {all} samples are idle"))?;
        let gil = sample("gil", "mode=gil")?;
        gil.shows(&["gil_holding_work"])?;
        let wall = sample("exception", "mode=wall")?;
        wall.shows(&["exception_handling_worker", "normal_worker"])?;
        let exception = sample("exception", "mode=exception")?;
        exception.shows(&["exception_handling_worker"])?;
        exception.hides("normal_worker")
    });
}

#[test]
fn work_is_seen_and_each_stack_has_its_root() {
    on_each_program(|sample| {
        sample("work", "rate=1khz")?.shows(&["slow_fibonacci", "cpu_intensive_work"])?;
        let deep = sample("generators", "rate=10khz")?;
        let rooted = |stack: &Stack| {
            let mut names = stack.frames.iter().map(|frame| &*frame.name);
            names.next() == Some("<module>") && names.any(|name| name == "run_forever")
        };
        let is_generators = |stack: &Stack| {
            let generators = ["deep_yield_chain", "recursive_diver", "oscillating_generator"];
            let is_one = |name: &str| generators.iter().any(|start| name.starts_with(start));
            stack.frames.iter().any(|frame| is_one(&frame.name))
        };
        let of = deep.counts(is_generators);
        ensure(of > 100, || format!("{of} of {} samples of generators", deep.all()))?;
        let without = deep.counts(|stack| is_generators(stack) && !rooted(stack));
        ensure(without == 0, || format!("{without} of {of} have no root"))
    });
}

#[test]
fn the_task_at_work_dominates_and_all_are_seen_if_asked_for() {
    on_each_program(|sample| {
        let all = sample("async", "async-mode=all")?;
        all.shows(&["sleeping_leaf", "cpu_leaf", "supervisor"])?;
        let running = sample("async", "async-aware")?;
        // Where no task runs, CPython's has no sample, and this one has the event loop's.
        let runs = |stack: &Stack| stack.frames.iter().any(|frame| frame.file == "<task>");
        let (leaf, of) = (running.of("cpu_leaf"), running.counts(runs));
        ensure(leaf * 10 > of * 9, || format!("{leaf} of {of} samples are the leaf's"))
    });
}

#[test]
fn collections_have_frames_unless_they_are_unwanted() {
    on_each_program(|sample| {
        sample("gc", "rate=1khz")?.shows(&["<GC>"])?;
        sample("gc", "rate=1khz,no-gc")?.hides("<GC>")
    });
}
