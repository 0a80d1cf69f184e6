//! Greenlets, and gevent's: the running one is shown, those that wait are shown as well, and no stack
//! is one that never was.

use std::collections::HashSet;

use crate::exactness::none;
use crate::frames::MAY_FAIL;
use crate::libraries::{has_libraries, libraries};
use crate::support::{
    Cores, Interpreter, Run, Stack, command, ensure, on_all, profile_command, supported,
};

fn run(python: &Interpreter, arguments: &[&str], options: &str) -> Result<Run, String> {
    let place = libraries(python).ok_or("no libraries")?;
    let mut made = command(python, "greenlets.py", arguments);
    let run = profile_command(made.env("PYTHONPATH", place), options)?;
    ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
    println!("{}: {arguments:?} {options}: {} failed", python.name, run.failed_share()?);
    Ok(run)
}

/// Of a name with the functions that it was defined in, the last part: all there is before 3.11.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// What stands for greenlets, in brackets, and functions, root first.
fn names(stack: &Stack) -> Vec<String> {
    let name = |frame: &crate::support::FrameLine| match &*frame.file {
        "<task>" => marker(&frame.name),
        _ => last(&frame.name).to_owned(),
    };
    stack.frames.iter().map(name).collect()
}

/// `greenlet (made.<locals>.works)` is `<greenlet (works)>`.
fn marker(name: &str) -> String {
    match name.split_once(" (") {
        Some((name, root)) => format!("<{name} ({}>", last(root)),
        None => format!("<{name}>"),
    }
}

fn chains(value: &serde_json::Value) -> Vec<Vec<String>> {
    let text = |name: &serde_json::Value| {
        let name = name.as_str().unwrap_or_default();
        match name.strip_prefix('<').and_then(|name| name.strip_suffix('>')) {
            Some(name) if name.contains(" (") => marker(name),
            _ => name.to_owned(),
        }
    };
    let chain = |chain: &serde_json::Value| {
        chain.as_array().into_iter().flatten().map(text).collect::<Vec<_>>()
    };
    value.as_array().into_iter().flatten().map(chain).collect()
}

/// Every greenlet that waits is seen to wait where it does, nearly all the time; and every one that
/// works, at work.
fn shows_all(python: &Interpreter, how: &str) -> Result<Run, String> {
    let run = run(python, &[how], "async-mode=all,rate=500hz")?;
    let truth = run.json()?;
    let found: Vec<(Vec<String>, u64)> =
        run.collapsed.iter().map(|stack| (names(stack), stack.count)).collect();
    let (waiting, running) = (chains(&truth["waiting"]), chains(&truth["running"]));
    ensure(!waiting.is_empty() && !running.is_empty(), || "no stacks were printed".to_owned())?;
    for expected in waiting.iter().chain(&running) {
        let (mut right, mut all) = (0, 0);
        for (names, count) in found.iter().filter(|(names, _)| names.first() == expected.first()) {
            all += count;
            // Of gevent's own functions, some are written in C.
            right += if names.starts_with(expected) { *count } else { 0 };
        }
        ensure(right > 10 && right * 10 > all * 8, || {
            format!("{right} of {all} samples are {expected:?} in {found:#?}")
        })?;
    }
    for (names, count) in &found {
        let root = names.first().and_then(|name| Some(name.split_once(" (")?.1));
        let has_root = root.is_none_or(|root| {
            names.get(1).is_some_and(|name| root.strip_suffix(")>") == Some(name.as_str()))
        });
        ensure(has_root, || format!("{names:?}"))?;
        // It ended before any other worked, or has never begun.
        let is_dead = ["<greenlet (ends)>", "<greenlet (burn)>"].contains(&names[0].as_str());
        ensure(!is_dead || *count < 3, || format!("{count} times {names:?}"))?;
    }
    Ok(run)
}

fn on_those_with_greenlets(cores: fn() -> Cores, check: fn(&Interpreter) -> Result<(), String>) {
    let pythons: Vec<Interpreter> =
        supported().iter().filter(|python| has_libraries(python)).cloned().collect();
    assert!(!pythons.is_empty() || std::env::var_os("CI").is_none(), "tests/provision.sh has them");
    on_all(&pythons, cores, check);
}

#[test]
fn greenlets_that_run_and_wait_are_shown() {
    on_those_with_greenlets(Cores::one, |python| shows_all(python, "raw").map(drop));
}

#[test]
fn greenlets_of_gevent_that_run_and_wait_are_shown() {
    on_those_with_greenlets(Cores::one, |python| shows_all(python, "gevent").map(drop));
}

#[test]
fn each_thread_has_greenlets_of_its_own() {
    on_those_with_greenlets(Cores::one, |python| {
        let run = shows_all(python, "threads")?;
        // `waits_2` and `works_2` are one thread's.
        let mut of_threads = HashSet::new();
        for stack in &run.collapsed {
            let first = stack.frames.first().map_or("", |frame| &*frame.name);
            if let Some((_, number)) = first.trim_end_matches(')').split_once("s_") {
                of_threads.insert((stack.tid, number.to_owned()));
            }
        }
        ensure(of_threads.len() == 3, || format!("{of_threads:?}"))
    });
}

/// What is wrong with a stack of the greenlets that spell their callers.
fn fault(names: &[String], is_aware: bool) -> Option<String> {
    let is_spelled =
        |name: &&String| ["leaf_", "step_", "worker_"].iter().any(|kind| name.starts_with(kind));
    let first = names.iter().position(|name| is_spelled(&name))?;
    let spelled: Vec<&String> = names[first..].iter().take_while(is_spelled).collect();
    let split = |name: &str| name.rsplit_once('_').map(|(kind, n)| (kind.to_owned(), n.to_owned()));
    let parts: Vec<_> = spelled.iter().filter_map(|name| split(name)).collect();
    let is_legal = parts.windows(2).all(|two| {
        two[0].1 == two[1].1
            && matches!(
                (&*two[0].0, &*two[1].0),
                ("worker", "step") | ("step", "step") | ("step", "leaf")
            )
    });
    let below = if is_aware { vec![format!("<greenlet ({})>", spelled[0])] } else { Vec::new() };
    let is_whole = parts.first().is_some_and(|(kind, _)| kind == "worker");
    let is_right = is_legal && is_whole && names[..first] == below;
    (!is_right).then(|| names.join(" < "))
}

fn churns(python: &Interpreter, options: &str) -> Result<(), String> {
    let run = run(python, &["churn"], options)?;
    let is_aware = options.contains("async");
    let found: Vec<(Vec<String>, u64)> =
        run.collapsed.iter().map(|stack| (names(stack), stack.count)).collect();
    let faults: Vec<String> =
        found.iter().filter_map(|(names, _)| fault(names, is_aware)).collect();
    none(&faults)?;
    let of_workers =
        found.iter().filter(|(names, _)| names.iter().any(|it| it.starts_with("step_")));
    let samples: u64 = of_workers.map(|(_, count)| count).sum();
    ensure(samples > 100, || format!("{samples} samples of the workers: {}", run.stderr))?;
    let failed = run.failed_share()?;
    ensure(is_aware || failed <= MAY_FAIL, || format!("{failed} of the samples failed"))
}

#[test]
fn stacks_of_greenlets_that_come_and_go_are_none_that_never_were() {
    on_those_with_greenlets(Cores::all, |python| {
        for options in ["rate=10khz", "rate=10khz,async-aware", "rate=10khz,async-mode=all"] {
            churns(python, options).map_err(|why| format!("{options}: {why}"))?;
        }
        Ok(())
    });
}

/// The judgement above must be able to fail.
#[test]
fn stacks_of_greenlets_that_never_were_are_recognised() {
    let fault = |names: &[&str], is_aware| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        fault(&names, is_aware).is_some()
    };
    let right = ["<greenlet (worker_1)>", "worker_1", "step_1", "step_1", "<lambda>"];
    assert!(!fault(&right, true) && !fault(&right[1..], false) && !fault(&["churn"], true));
    assert!(fault(&right, false) && fault(&right[1..], true) && fault(&right[2..], false));
    for wrong in [
        ["<greenlet (worker_2)>", "worker_1", "step_1", "step_1"],
        ["<greenlet (worker_1)>", "worker_1", "step_1", "step_2"],
        ["<greenlet (worker_1)>", "worker_1", "leaf_1", "step_1"],
    ] {
        assert!(fault(&wrong, true), "{wrong:?}");
    }
}
