//! Tasks are shown with those that await them, and those that wait are shown as well.

use std::collections::BTreeMap;

use crate::frames::MAY_FAIL;
use crate::support::{Cores, Interpreter, Run, Stack, ensure, on_each, profile};

/// Names of tasks, in brackets, and of Python functions, root first. A future that is written in Python
/// has a frame of its own where it is awaited.
fn names(stack: &Stack) -> Vec<String> {
    let name = |frame: &crate::support::FrameLine| match &*frame.file {
        "<task>" => format!("<{}>", frame.name),
        _ => frame.name.clone(),
    };
    let is_future = |name: &String| name.ends_with("__await__");
    let of_python = stack.python().into_iter().filter(|frame| frame.file != "~");
    of_python.map(name).filter(|name| !is_future(name)).collect()
}

fn chain(value: &serde_json::Value) -> Vec<String> {
    let names = value.as_array().into_iter().flatten();
    names.filter_map(|name| Some(name.as_str()?.to_owned())).collect()
}

fn run(python: &Interpreter, script: &str, how: &str, options: &str) -> Result<Run, String> {
    let run = profile(python, script, &[how], options)?;
    ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
    let failed = run.failed_share()?;
    // Tasks that wait change while they are read: how many such samples fail is not settled.
    let is_settled = !options.contains("async-mode=all");
    println!("{options}: {failed} of the samples failed");
    ensure(failed <= MAY_FAIL || !is_settled, || format!("{failed} of the samples failed"))?;
    Ok(run)
}

/// Every sample of a leaf at work shows its chain.
fn shows_all_chains(python: &Interpreter, how: &str, options: &str) -> Result<Run, String> {
    let run = run(python, "async_chains.py", how, options)?;
    let truth = run.json()?;
    for (leaf, expected) in truth.as_object().ok_or("no chains were printed")? {
        let expected = chain(expected);
        let (mut right, mut all) = (0, 0);
        for stack in &run.collapsed {
            let names = names(stack);
            if names.contains(leaf) {
                // Whoever makes the task calls the function, which gives the coroutine at once.
                let does_nothing = names.last() == Some(leaf);
                ensure(does_nothing || names == expected, || {
                    format!("{names:?}, not {expected:?}")
                })?;
                right += if names == expected { stack.count } else { 0 };
                all += stack.count;
            }
        }
        ensure(right * 10 > all * 9, || format!("{right} of {all} samples of {leaf}"))?;
    }
    Ok(run)
}

/// At a rate that takes some thousands of samples: of a thousand, one that fails is too many.
const RUNNING: &str = "async-aware,rate=10khz";

#[test]
fn the_running_task_is_shown_below_those_that_await_it() {
    on_each(Cores::one, |python| shows_all_chains(python, "c", RUNNING).map(drop));
}

#[test]
fn tasks_that_are_written_in_python_are_shown_too() {
    on_each(Cores::one, |python| shows_all_chains(python, "python", RUNNING).map(drop));
}

/// Programs that run loops within loops put the classes that are written in Python into asyncio's modules.
#[test]
fn tasks_are_shown_where_their_class_was_replaced() {
    on_each(Cores::one, |python| {
        let is_shown = |how| shows_all_chains(python, how, RUNNING).map(drop);
        is_shown("replaced").and_then(|()| is_shown("replaced late"))
    });
}

/// Which task a thread runs is written down where all loops write, and no lock is held while it is read.
#[test]
fn another_threads_loop_does_not_hide_a_task() {
    on_each(Cores::all, |python| {
        for how in ["c", "python"] {
            let run = run(python, "async_loops.py", how, "async-aware,rate=20khz")?;
            let expected = ["<Task-", "working", "<work>", "work", "burn"];
            let (mut hidden, mut all, mut works, mut hops) = (0, 0, 0, 0);
            for stack in &run.collapsed {
                let names = names(stack);
                let count_of =
                    |name: &str| u64::from(names.iter().any(|it| it == name)) * stack.count;
                hops += count_of("<hop>");
                works += count_of("work");
                if names.last().is_some_and(|last| last == "burn") {
                    let is_it = names.len() == expected.len()
                        && names.iter().zip(expected).all(|(name, it)| name.starts_with(it));
                    hidden += if is_it { 0 } else { stack.count };
                    all += stack.count;
                }
            }
            println!("{} {how}: {hidden} of {all} samples", python.name);
            ensure(hidden == 0, || format!("{how}: {hidden} of {all} samples"))?;
            ensure(all * 2 > works && works > 1_000 && hops > 0, || {
                format!("{how}: {all} of {works}, and {hops}")
            })?;
        }
        Ok(())
    });
}

#[test]
fn c_functions_are_shown_on_top_of_the_same_tasks() {
    on_each(Cores::one, |python| {
        let options = format!("{RUNNING},native,opcodes");
        let run = shows_all_chains(python, "c", &options)?;
        let is_named = |stack: &&Stack| {
            let [.., below, top] = stack.frames.as_slice() else { return false };
            (below.name.as_str(), top.name.as_str()) == ("burn", "time.thread_time")
        };
        let named: u64 = run.collapsed.iter().filter(is_named).map(|stack| stack.count).sum();
        // Its only call, which older versions do not tell.
        let is_told = python.minor() >= (3, 12) && !python.free_threaded;
        ensure(!is_told || named * 2 > run.samples(), || {
            format!("{named} of {} samples", run.samples())
        })
    });
}

#[test]
fn tasks_that_wait_are_samples_as_well() {
    on_each(Cores::one, |python| {
        for how in ["c", "python"] {
            let run = run(python, "async_waiting.py", how, "async-mode=all,rate=200hz")?;
            let found: Vec<Vec<String>> = run.collapsed.iter().map(names).collect();
            let truth = run.json()?;
            for expected in truth.as_array().ok_or("no chains were printed")? {
                let expected = chain(expected);
                ensure(found.contains(&expected), || format!("{how}: no {expected:?}"))?;
            }
            let is_circle = |names: &Vec<String>| {
                ["<circle 0>", "<circle 1>"].iter().all(|task| names.iter().any(|it| it == task))
            };
            ensure(found.iter().any(is_circle), || format!("{how}: no circle"))?;
            let burns = ["<root>", "main", "<working>", "busy", "burn"];
            ensure(found.iter().any(|names| *names == burns), || format!("{how}: none works"))?;
        }
        Ok(())
    });
}

/// What is remembered of tasks that wait must not outlive what it was read from.
#[test]
fn tasks_that_go_on_are_seen_where_they_wait_then() {
    on_each(Cores::one, |python| {
        for how in ["c", "python"] {
            let run = run(python, "async_hopping.py", how, "async-mode=all,rate=200hz")?;
            let truth = run.json()?;
            let mut found = BTreeMap::<String, u64>::new();
            for stack in &run.collapsed {
                let names = names(stack);
                let [task, called @ ..] = names.as_slice() else { continue };
                if task != "<walker>" {
                    continue;
                }
                // One that runs has called something else.
                let is_its = |name: &&String| **name == "a" || name.starts_with("a_");
                let chain: Vec<String> = called.iter().take_while(is_its).cloned().collect();
                let spelled = |pair: &[String]| {
                    pair[1].strip_prefix(&*pair[0]).is_some_and(|rest| rest.len() == 2)
                };
                let is_legal = chain.first().is_some_and(|first| first == "a");
                ensure(is_legal && chain.windows(2).all(spelled), || format!("{how}: {names:?}"))?;
                let last = chain.last().ok_or("no frame")?;
                *found.entry(last.clone()).or_default() += stack.count;
            }
            let total: u64 = found.values().sum();
            for (place, share) in truth.as_object().ok_or("no shares were printed")? {
                let share = share.as_f64().ok_or("no share")?;
                let seen = found.get(place).copied().unwrap_or_default() as f64 / total as f64;
                println!("{how}: {place} {share:.4}, seen {seen:.4}");
                ensure((seen - share).abs() < 0.01, || {
                    format!("{how}: {place}: {seen}, not {share}")
                })?;
            }
        }
        Ok(())
    });
}
