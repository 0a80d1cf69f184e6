//! Every kind of frame is found where it is, and nowhere else.

use std::collections::HashMap;

use serde_json::Value;

use crate::support::{Cores, FrameLine, Run, ensure, on_each, profile};

/// More than this share of failed samples is too much, in any code.
pub const MAY_FAIL: f64 = 0.001;

/// The expected stacks, each with its scenario, by thread and top frame.
type Expected = HashMap<(u64, FrameLine), Vec<(String, Vec<FrameLine>)>>;

fn frame(value: &Value) -> Option<FrameLine> {
    Some(FrameLine {
        file: value[0].as_str()?.to_owned(),
        name: value[1].as_str()?.to_owned(),
        line: value[2].as_u64()?,
    })
}

/// Reads the program's report: whatever has one of these tops is known altogether.
fn expected(truth: &Value) -> Option<Expected> {
    let mut stacks = Expected::new();
    for scenario in truth["scenarios"].as_array()? {
        let frames = scenario["stack"].as_array()?;
        let frames: Vec<FrameLine> = frames.iter().map(frame).collect::<Option<_>>()?;
        let top = (scenario["tid"].as_u64()?, frames.last()?.clone());
        stacks.entry(top).or_default().push((scenario["scenario"].as_str()?.to_owned(), frames));
    }
    Some(stacks)
}

/// The innermost frames, for messages.
fn inner(frames: &[FrameLine]) -> String {
    let shown = frames.iter().skip(frames.len().saturating_sub(5));
    let shown: Vec<String> =
        shown.map(|frame| format!("{}:{}:{}", frame.file, frame.name, frame.line)).collect();
    format!("{} frames, …;{}", frames.len(), shown.join(";"))
}

/// Where two stacks part, root first.
fn difference(expected: &[FrameLine], found: &[FrameLine]) -> String {
    let at = expected.iter().zip(found).take_while(|(one, other)| one == other).count();
    format!("at {at} expected {:?}, found {:?}", expected.get(at), found.get(at))
}

fn check_known_frames(run: &Run) -> Result<(), String> {
    let truth = run.json()?;
    let expected = expected(&truth).ok_or("the program's report cannot be read")?;
    let (span, wall) = (truth["span"].as_f64().unwrap(), truth["wall"].as_f64().unwrap());

    let mut seen: HashMap<(u64, Vec<FrameLine>), u64> = HashMap::new();
    let mut of_main = 0;
    let main = truth["scenarios"][0]["tid"].as_u64().unwrap();
    let mut faults = Vec::new();
    for stack in &run.collapsed {
        of_main += if stack.tid == main { stack.count } else { 0 };
        let frames: Vec<FrameLine> = stack.python().into_iter().cloned().collect();
        let Some(top) = frames.last() else { continue };
        if let Some(legal) = expected.get(&(stack.tid, top.clone()))
            && !legal.iter().any(|(_, legal)| *legal == frames)
        {
            let alike = |(_, legal): &&(String, Vec<FrameLine>)| {
                let differ = |(one, other): &(&FrameLine, &FrameLine)| one != other;
                legal.iter().zip(&frames).filter(differ).count()
                    + legal.len().abs_diff(frames.len())
            };
            let (name, nearest) = legal.iter().min_by_key(alike).unwrap();
            faults.push(format!(
                "{} samples that never were: {}; nearest is '{name}', {}",
                stack.count,
                inner(&frames),
                difference(nearest, &frames)
            ));
        }
        *seen.entry((stack.tid, frames)).or_default() += stack.count;
    }

    // A busy machine may hold the sampler up for most of a scenario; what is never read right is
    // not there at all.
    let enough = of_main as f64 / wall * span / 10.0;
    for ((tid, _), stacks) in &expected {
        for (scenario, frames) in stacks {
            let count = seen.get(&(*tid, frames.clone())).copied().unwrap_or(0);
            if (count as f64) < enough {
                faults
                    .push(format!("'{scenario}' {count} times of {enough:.0}: {}", inner(frames)));
            }
        }
    }
    let total = faults.len();
    faults.truncate(12);
    ensure(faults.is_empty(), || format!("{total} faults:\n    {}", faults.join("\n    ")))?;
    ensure(enough >= 5.0, || format!("only {of_main} samples of the main thread in {wall} s"))
}

#[test]
fn every_kind_of_frame_is_found() {
    on_each(Cores::one, |python| {
        let run = profile(python, "known_frames.py", &[], "rate=10khz")?;
        ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
        check_known_frames(&run)?;
        let failed = run.failed_share()?;
        ensure(failed <= MAY_FAIL, || format!("{failed} of the samples failed"))
    });
}

#[test]
fn the_signal_protocol_finds_the_same() {
    on_each(Cores::one, |python| {
        let run = profile(python, "known_frames.py", &[], "rate=2khz,blocking")?;
        ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
        check_known_frames(&run)
    });
}

/// The check above must be able to fail: each kind of fault is put into a right profile.
#[test]
fn a_wrong_profile_is_recognised() {
    let top = "known.py:work:7";
    let report = r#"{"span": 1.0, "wall": 1.0, "scenarios": [{"scenario": "work", "tid": 5,
        "thread": "main", "stack": [["known.py", "<module>", 9], ["known.py", "work", 7]]}]}"#;
    let outcome = |stack: &str| {
        let collapsed = format!("tid:5;{stack} 1000");
        let run = Run::of(&report.replace('\n', ""), &collapsed).unwrap();
        check_known_frames(&run)
    };
    assert_eq!(outcome(&format!("known.py:<module>:9;{top}")), Ok(()));
    assert_eq!(outcome(&format!("known.py:<module>:9;{top};<GC>")), Ok(()));
    let wrong = [
        "known.py:<module>:8;known.py:work:7",
        "known.py:work:7",
        "known.py:<module>:9;known.py:other:3;known.py:work:7",
        "known.py:<module>:9;known.py:work:6",
        "other.py:<module>:9;known.py:work:7",
    ];
    for stack in wrong {
        assert!(outcome(stack).is_err(), "{stack} passed");
    }
}
