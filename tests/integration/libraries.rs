//! Libraries that switch stacks, run event loops or start threads in C: the program does what it
//! does without pysamp, and the profile shows what it did.

use std::env;
use std::fs;
use std::path::PathBuf;

use crate::application::compared;
use crate::exactness::none;
use crate::frames::MAY_FAIL;
use crate::support::{Cores, Interpreter, Run, command, ensure, on_all, run_to_end, supported};

/// What libraries.py can be told, and whether one thread does all of the work: then the workers'
/// shares are those of its CPU time.
const LIBRARIES: [(&str, bool); 4] =
    [("greenlet", true), ("gevent", true), ("uvloop", true), ("numpy", false)];

/// The versions for which tests/provision.sh installs all of the libraries.
const PROVIDED: [&str; 3] = ["3.8", "3.12", "3.15"];

/// What a share may be off by. The truth is CPU time; a sample in which the thread waits for its turn
/// counts as much as others, and on a busy machine it waits for milliseconds, many turns long.
const SHARE: f64 = 0.05;

/// Whether there are any for an interpreter: greenlet and gevent are there for more of them.
pub fn has_libraries(python: &Interpreter) -> bool {
    libraries(python).is_some()
}

/// Where the libraries for an interpreter are.
pub fn libraries(python: &Interpreter) -> Option<PathBuf> {
    let own = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/pysamp"));
    let cache = env::var_os("PYSAMP_CACHE").map(PathBuf::from).or_else(own)?;
    let (major, minor) = python.minor();
    let place = cache.join("libraries").join(format!("{major}.{minor}"));
    (place.is_dir() && !python.free_threaded && !python.debug).then_some(place)
}

/// Whether all libraries are there for an interpreter.
fn has_all(python: &Interpreter) -> bool {
    let (major, minor) = python.minor();
    PROVIDED.contains(&&*format!("{major}.{minor}")) && has_libraries(python)
}

/// What is wrong with the workers' frames of a stack, from the worker's own on.
fn fault(names: &[&str]) -> Option<String> {
    let split =
        |name: &&str| name.rsplit_once('_').map(|(kind, n)| (kind.to_owned(), n.to_owned()));
    let parts: Vec<(String, String)> = names.iter().filter_map(split).collect();
    let is_legal = |above: &str, below: &str| {
        matches!((above, below), ("worker", "turn") | ("turn" | "step", "step") | ("step", "leaf"))
    };
    let is_right = parts.first().is_none_or(|(kind, _)| kind == "worker")
        && parts.windows(2).all(|two| two[0].1 == two[1].1 && is_legal(&two[0].0, &two[1].0));
    (!is_right).then(|| names.join(" < "))
}

/// The workers' frames of each stack, and its samples.
fn of_workers(run: &Run) -> impl Iterator<Item = (Vec<&str>, u64)> {
    run.collapsed.iter().map(|stack| {
        let is_worker = |frame: &&crate::support::FrameLine| {
            frame.file == "workers.py" && frame.name != "<module>"
        };
        let frames = stack.frames.iter().filter(is_worker);
        (frames.map(|frame| frame.name.as_str()).collect(), stack.count)
    })
}

fn check(python: &Interpreter, library: &str, has_shares: bool) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let truth = directory.path().join("truth");
    let place = libraries(python).ok_or("no libraries")?;
    let make = || {
        let mut made = command(python, "libraries.py", &[library, &truth.display().to_string()]);
        made.env("PYTHONPATH", &place);
        made
    };
    let plain = run_to_end(&mut make())?.output;
    ensure(plain.status.success(), || String::from_utf8_lossy(&plain.stderr).into_owned())?;
    let run = compared(make(), library, "rate=10khz", &plain)?;
    let failed = run.failed_share()?;
    ensure(failed <= MAY_FAIL, || format!("{failed} of the samples failed"))?;
    let faults: Vec<String> = of_workers(&run).filter_map(|(names, _)| fault(&names)).collect();
    none(&faults)?;

    let truth = fs::read_to_string(&truth).map_err(|error| error.to_string())?;
    let spent: Vec<f64> = serde_json::from_str(&truth).map_err(|error| error.to_string())?;
    let mut samples = vec![0.0; spent.len()];
    for (names, count) in of_workers(&run) {
        let Some(turn) = names.iter().find_map(|name| name.strip_prefix("turn_")) else { continue };
        samples[turn.parse::<usize>().map_err(|error| error.to_string())?] += count as f64;
    }
    let (all, cpu) = (samples.iter().sum::<f64>(), spent.iter().sum::<f64>());
    println!("{}: {library}: {all} samples of the workers", python.name);
    ensure(all > 500.0, || format!("{all} samples of the workers: {}", run.stderr))?;
    ensure(samples.iter().all(|&samples| samples > 0.0), || format!("{samples:?}"))?;
    for (n, (samples, spent)) in samples.iter().zip(&spent).enumerate().filter(|_| has_shares) {
        let (found, right) = (samples / all, spent / cpu);
        let noise = SHARE + 3.0 * (right * (1.0 - right) / all).sqrt();
        ensure((found - right).abs() < noise, || {
            format!(
                "worker {n} has {found:.3} of the samples, {right:.3} of the time (±{noise:.3})"
            )
        })?;
    }
    Ok(())
}

#[test]
fn other_libraries_work_and_are_seen_at_work() {
    let pythons: Vec<Interpreter> =
        supported().iter().filter(|python| has_all(python)).cloned().collect();
    let is_there = |version: &&str| {
        let is_it = |python: &Interpreter| {
            let (major, minor) = python.minor();
            **version == format!("{major}.{minor}")
        };
        pythons.iter().any(is_it)
    };
    let missing: Vec<&str> = PROVIDED.into_iter().filter(|one| !is_there(one)).collect();
    assert!(
        missing.is_empty() || env::var_os("CI").is_none(),
        "tests/provision.sh installs the libraries that are missing: for {}",
        missing.join(", ")
    );
    on_all(&pythons, Cores::one, |python| {
        let faults: Vec<String> = LIBRARIES
            .into_iter()
            .filter_map(|(library, has_shares)| {
                check(python, library, has_shares).err().map(|why| format!("{library}: {why}"))
            })
            .collect();
        ensure(faults.is_empty(), || faults.join("\n"))
    });
}

/// The judgement above must be able to fail.
#[test]
fn workers_stacks_that_never_were_are_recognised() {
    for right in [
        &[][..],
        &["worker_1"],
        &["worker_1", "turn_1"],
        &["worker_1", "turn_1", "step_1", "step_1", "leaf_1"],
    ] {
        assert_eq!(fault(right), None);
    }
    for wrong in [
        &["turn_1"][..],
        &["worker_1", "turn_2"],
        &["worker_1", "step_1"],
        &["worker_1", "turn_1", "leaf_1"],
        &["worker_1", "turn_1", "step_1", "worker_2"],
        &["worker_1", "turn_1", "step_1", "step_2"],
    ] {
        assert!(fault(wrong).is_some(), "{wrong:?}");
    }
}
