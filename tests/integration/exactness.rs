//! No stack that never existed, none left out, and none of the short-lived ones shortchanged.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::frames::MAY_FAIL;
use crate::support::{
    Cores, FrameLine, Interpreter, Run, Stack, ensure, on_all, on_each, profile, program,
    run_to_end, supported,
};

/// Seconds per run: `PYSAMP_LONG` asks for a million samples of each version.
fn seconds(short: u32, long: u32) -> String {
    if env::var_os("PYSAMP_LONG").is_some() { long } else { short }.to_string()
}

/// What check_spelled.py says of a profile.
pub struct Spelled {
    pub samples: u64,
    pub impossible: u64,
    by_depth: Vec<u64>,
    pub examples: String,
}

pub fn spelled(python: &Interpreter, text: &str) -> Result<Spelled, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = directory.path().join("profile.txt");
    fs::write(&file, text).map_err(|error| error.to_string())?;
    let mut check = Command::new(&python.path);
    check.arg("-B").arg(program("check_spelled.py")).arg("--json").arg(file);
    let output = run_to_end(&mut check)?.output;
    let found: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let number = |value: &Value| value.as_u64().ok_or(format!("{found}"));
    Ok(Spelled {
        samples: number(&found["samples"])?,
        impossible: number(&found["impossible"])? + number(&found["unreadable"])?,
        by_depth: found["by_depth"]
            .as_array()
            .unwrap()
            .iter()
            .map(number)
            .collect::<Result<_, _>>()?,
        examples: format!("{:#}", found["examples"]),
    })
}

/// A run must end well, fail few samples, and take most of those it was asked for.
pub fn sound(run: &Run, wanted: f64) -> Result<(), String> {
    ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
    let failed = run.failed_share()?;
    ensure(failed <= MAY_FAIL, || format!("{failed} of the samples failed"))?;
    let samples = run.samples();
    ensure(samples as f64 >= wanted / 2.0, || format!("{samples} samples of {wanted}"))
}

fn no_impossible_stack(calls: &str) {
    let seconds = seconds(2, 110);
    let wanted = seconds.parse::<f64>().unwrap() * 1e4;
    on_each(Cores::all, |python| {
        let arguments = ["--calls", calls, "--seconds", &seconds];
        let run = profile(python, "spelled_tree.py", &arguments, "rate=10khz")?;
        sound(&run, wanted)?;
        let found = spelled(python, &run.text)?;
        println!("{}: {} impossible of {}", python.name, found.impossible, found.samples);
        ensure(found.impossible == 0, || {
            format!("{} impossible of {}: {}", found.impossible, found.samples, found.examples)
        })
    });
}

#[test]
fn no_impossible_stack_where_all_are_called_from_one_line() {
    no_impossible_stack("one");
}

#[test]
fn no_impossible_stack_where_each_is_called_from_its_own_line() {
    no_impossible_stack("each");
}

/// What of the samples may show another call of a function than the one that it was read in, two moments that nothing
/// tells apart; and more where C code calls it, of which value stacks show nothing.
const MIXED: f64 = 2e-4;
const MIXED_THROUGH_C: f64 = 1e-3;

#[test]
fn who_called_what_through_a_shared_function_is_right() {
    let file = program("shared_callers.py");
    let text = fs::read_to_string(&file).expect("it is there");
    let lines: Vec<&str> = text.lines().collect();
    let names = |frame: &FrameLine, what: &str| {
        let line = lines.get(frame.line as usize - 1).unwrap_or(&"");
        frame.file == "shared_callers.py" && (frame.name.contains(what) || line.contains(what))
    };
    let is_mixed = |stack: &&Stack| {
        let has = |what| stack.frames.iter().any(|frame| names(frame, what));
        stack.frames.iter().any(|frame| frame.name == "main") && has("_one") && has("_two")
    };
    on_each(Cores::all, |python| {
        let arguments = ["--seconds", &seconds(4, 60)];
        let run = profile(python, "shared_callers.py", &arguments, "rate=10khz")?;
        sound(&run, 4e4)?;
        let is_through_c = |stack: &Stack| {
            stack.frames.iter().any(|frame| ["passes", "maps"].contains(&frame.name.as_str()))
        };
        for (through_c, most) in [(false, MIXED), (true, MIXED_THROUGH_C)] {
            let stacks = run.collapsed.iter().filter(is_mixed);
            let mixed: Vec<&Stack> = stacks.filter(|it| is_through_c(it) == through_c).collect();
            let count: u64 = mixed.iter().map(|stack| stack.count).sum();
            let samples = run.samples();
            println!("{}: {count} mixed of {samples}, through C: {through_c}", python.name);
            ensure(count as f64 <= most * samples as f64, || {
                format!("{count} of {samples}: {:?}", mixed.first())
            })?;
        }
        Ok(())
    });
}

/// What a right share may be off by, as for the shares of truth.py.
const SHARE: f64 = 0.01;

/// What is left of the share of what is too short to be caught easily.
const LEAF_KEEPS: f64 = 0.5;

#[test]
#[ignore = "a measurement, not settled in the few seconds that other tests take: one percentage point \
            holds in most runs, not in all; PYSAMP_LONG=1 and --ignored run it"]
fn every_depth_keeps_its_share() {
    on_each(Cores::all, |python| {
        let arguments = ["--seconds", &seconds(2, 20)];
        let shares = |options| {
            let run = profile(python, "spelled_tree.py", &arguments, options)?;
            ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
            let found = spelled(python, &run.text)?;
            ensure(found.samples > 1000, || format!("{options}: {} samples", found.samples))?;
            let share = |&part: &u64| part as f64 / found.samples as f64;
            let shares: Vec<f64> = found.by_depth.iter().map(share).collect();
            Ok::<_, String>((shares, found.samples as f64))
        };
        let (right, of_right) = shares("rate=10khz,blocking")?;
        let (found, of_found) = shares("rate=10khz")?;
        println!("{}: by signal {right:.4?}, as it runs {found:.4?}", python.name);
        for (depth, (right, found)) in right.iter().zip(&found).enumerate() {
            // Four standard deviations of the difference of two shares.
            let noise = 4.0 * (right * (1.0 - right) * (1.0 / of_right + 1.0 / of_found)).sqrt();
            ensure((right - found).abs() <= SHARE + noise, || {
                format!("depth {depth} has {found:.4}, but {right:.4} by signal (noise {noise:.4})")
            })?;
            ensure(*found >= LEAF_KEEPS * right - noise, || {
                format!("depth {depth} keeps {found:.4} of its {right:.4} (noise {noise:.4})")
            })?;
        }
        Ok(())
    });
}

/// What a function that returns at once, in a loop that does nothing else than call it, shows of the share that it has
/// in held samples. How much depends on where frames lie in cache lines, in each run elsewhere. Before 3.11 nearly
/// all samples of such loops are held anyway.
const BRIEF: std::ops::RangeInclusive<f64> = 0.25..=2.5;
const BRIEF_RUNS: u32 = 4;

#[test]
fn functions_that_return_at_once_keep_their_share_in_loops() {
    let is_modern = |python: &&Interpreter| python.minor() >= (3, 11);
    let modern: Vec<Interpreter> = supported().iter().filter(is_modern).cloned().collect();
    on_all(&modern, Cores::all, |python| {
        let arguments = ["--seconds", &seconds(1, 10)];
        let share = |options| {
            let run = profile(python, "brief_calls.py", &arguments, options)?;
            ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
            let looping: Vec<&Stack> = run.collapsed.iter().filter(|it| is_looping(it)).collect();
            let count = |stacks: &[&Stack]| stacks.iter().map(|it| it.count).sum::<u64>() as f64;
            let of_all = count(&looping);
            ensure(of_all > 2000.0, || format!("{options}: {of_all} samples"))?;
            let brief: Vec<&Stack> = looping.into_iter().filter(|it| is_brief(it)).collect();
            Ok::<_, String>(count(&brief) / of_all)
        };
        let mean = |options| {
            let shares: Result<Vec<f64>, String> =
                (0..BRIEF_RUNS).map(|_| share(options)).collect();
            println!("{}, {options}: {shares:.4?}", python.name);
            Ok::<_, String>(shares?.iter().sum::<f64>() / f64::from(BRIEF_RUNS))
        };
        let (right, found) = (mean("rate=5khz,blocking")?, mean("rate=5khz")?);
        ensure(right > 0.02 && BRIEF.contains(&(found / right)), || {
            format!("{found:.4} as it runs, {right:.4} held")
        })
    });
}

fn is_looping(stack: &Stack) -> bool {
    stack.frames.iter().any(|frame| frame.name.starts_with("calls_"))
}

fn is_brief(stack: &Stack) -> bool {
    stack.frames.last().is_some_and(|frame| frame.name.ends_with("brief"))
}

/// Digits of a name made of words and numbers, such as `outer_000123_045`.
fn numbers(name: &str) -> Vec<u64> {
    let digits =
        name.split(['_', '.']).filter(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    digits.filter_map(|part| part.parse().ok()).collect()
}

/// What is wrong with a frame of a function that code_churn.py makes and `caller` calls; it was
/// seen below `above`. Frames of other functions are right.
pub fn churned(frame: &FrameLine, above: Option<&FrameLine>, caller: &str) -> Option<&'static str> {
    let serial = *numbers(frame.file.strip_prefix("made_")?).first()?;
    if frame.name == "<module>" {
        return None;
    }
    let &[of_name, first] = numbers(&frame.name).as_slice() else {
        return Some("a name from elsewhere");
    };
    let lines = if frame.name.starts_with("outer") { 2 } else { 3 };
    if of_name != serial {
        return Some("a name and a file of two functions");
    }
    if !(first..first + lines).contains(&frame.line) {
        return Some("another function's line");
    }
    let called_rightly = if frame.name.starts_with("outer") {
        above.is_some_and(|above| above.name == caller)
    } else {
        let outer = format!("outer_{serial:06}_{:03}", first - 2);
        above.is_some_and(|above| above.name == outer && above.line + 1 == first)
    };
    if called_rightly { None } else { Some("called by another function") }
}

/// The faults that `judge` finds between each frame and the one above it.
pub fn faults(
    stacks: &[Stack],
    judge: impl Fn(&FrameLine, Option<&FrameLine>) -> Option<&'static str>,
) -> Vec<String> {
    let mut faults = Vec::new();
    for stack in stacks {
        let frames = stack.python();
        for (at, frame) in frames.iter().enumerate() {
            let above = at.checked_sub(1).map(|above| frames[above]);
            if let Some(fault) = judge(frame, above) {
                faults.push(format!("{fault}, {} times: {frame:?} below {above:?}", stack.count));
            }
        }
    }
    faults
}

/// Fails with some of the faults, if there are any.
pub fn none(faults: &[String]) -> Result<(), String> {
    ensure(faults.is_empty(), || {
        let some = &faults[..faults.len().min(5)];
        format!("{} faults:\n    {}", faults.len(), some.join("\n    "))
    })
}

#[test]
fn code_that_lands_where_other_code_was_is_told_apart() {
    on_each(Cores::all, |python| {
        let run = profile(python, "code_churn.py", &["--seconds", "2"], "rate=10khz")?;
        sound(&run, 2e4)?;
        let counts = run.json()?;
        let reused = counts["reused"].as_u64().unwrap_or(0);
        ensure(reused > 100, || format!("only {reused} reused an address: nothing is tested"))?;
        let churned_frames =
            |stack: &&Stack| stack.frames.iter().any(|f| f.name.starts_with("inner"));
        let distinct: HashSet<&str> = run
            .collapsed
            .iter()
            .filter(churned_frames)
            .filter_map(|stack| stack.frames.last().map(|frame| frame.file.as_str()))
            .collect();
        ensure(distinct.len() > 100, || format!("only {} functions seen", distinct.len()))?;
        none(&faults(&run.collapsed, |frame, above| churned(frame, above, "main")))
    });
}

/// What is wrong with a frame of generators.py: only one function may resume each generator.
fn resumed(frame: &FrameLine, above: Option<&FrameLine>) -> Option<&'static str> {
    let above = above.map_or("", |above| above.name.as_str());
    let caller = match numbers(&frame.name).as_slice() {
        [_] => "run".to_owned(),
        [chain, 0] => format!("pull_{chain}"),
        [chain, link] => format!("chain_{chain}_{}", link - 1),
        _ => return None,
    };
    if above == caller { None } else { Some("resumed by another") }
}

#[test]
fn a_generator_is_resumed_only_by_those_who_do() {
    on_each(Cores::all, |python| {
        let run = profile(python, "generators.py", &["--seconds", "2"], "rate=10khz")?;
        sound(&run, 2e4)?;
        let inside: u64 = run
            .collapsed
            .iter()
            .filter(|stack| stack.frames.last().is_some_and(|top| top.file == "chains.py"))
            .map(|stack| stack.count)
            .sum();
        ensure(inside > 5000, || format!("only {inside} samples of generators"))?;
        none(&faults(&run.collapsed, |frame, above| {
            if frame.file == "chains.py" { resumed(frame, above) } else { None }
        }))
    });
}

/// The judgements above must be able to fail.
#[test]
fn impossible_stacks_are_recognised() {
    let python = &crate::support::supported()[0];
    let root = "spelled_one.py"; // the tree's own file; the program's is spelled_tree.py
    let spell = |tree: &str| {
        let program = "spelled_tree.py:<module>:90;spelled_tree.py:main:84;spelled_tree.py:walk:67";
        spelled(python, &format!("tid:1;{program};{tree} 7\n")).unwrap()
    };
    let right = spell(&format!("{root}:f:11;{root}:f_1:31;{root}:f_1_2:101"));
    assert_eq!((right.samples, right.impossible), (7, 0), "{}", right.examples);
    assert_eq!(right.by_depth[2], 7);
    for wrong in [
        format!("{root}:f:11;{root}:f_1:31;{root}:f_2_2:131"),
        format!("{root}:f:11;{root}:f_1_2:101"),
        format!("{root}:f_1:31;{root}:f_1_2:101"),
        format!("{root}:f:11;{root}:f_1:10;{root}:f_1_2:101"),
        format!("{root}:f:11;{root}:f_1:31;{root}:f_1_2:121"),
        format!("{root}:f:11;spelled_tree.py:walk:67"),
        format!("spelled_tree.py:walk:67;{root}:f:11;{root}:f:11"),
    ] {
        assert_eq!(spell(&wrong).impossible, 7, "{wrong}");
    }

    let frame = |text: &str| Run::of("", &format!("tid:1;{text} 1")).unwrap().collapsed;
    let churn =
        |text: &str| faults(&frame(text), |frame, above| churned(frame, above, "main")).len();
    let outer = "made_000012.py:outer_000012_045:46";
    assert_eq!(churn(&format!("c.py:main:1;{outer};made_000012.py:inner_000012_047:49")), 0);
    assert_eq!(churn(&format!("c.py:main:1;{outer};made_000012.py:inner_000012_047:50")), 1);
    assert_eq!(churn(&format!("c.py:main:1;{outer};made_000013.py:inner_000012_047:49")), 1);
    assert_eq!(churn(&format!("c.py:main:1;{outer};made_000013.py:inner_000013_047:49")), 1);
    assert_eq!(churn("c.py:main:1;made_000012.py:inner_000012_047:49"), 1);

    let pulled = |text: &str| faults(&frame(text), resumed).len();
    assert_eq!(pulled("c.py:run:1;c.py:pull_2:1;c.py:chain_2_0:1;c.py:chain_2_1:1"), 0);
    assert_eq!(pulled("c.py:run:1;c.py:pull_2:1;c.py:chain_3_0:1;c.py:chain_3_1:1"), 1);
    assert_eq!(pulled("c.py:run:1;c.py:pull_2:1;c.py:chain_2_1:1"), 1);
    assert_eq!(pulled("c.py:run:1;c.py:chain_2_0:1"), 1);
}
