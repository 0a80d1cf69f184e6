//! When sampling begins, ends and is written is up to the user: by options and by a signal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use crate::support::{Cores, Interpreter, Run, command, ensure, library, on_each, run_to_end};

/// Most samples of what runs next that are under way when the signal comes, for all signals.
const STRAY: u64 = 2;

/// What a run of controlled.py left.
struct Left {
    pid: u32,
    /// Files by name, and the samples of each function in them.
    files: BTreeMap<String, HashMap<String, u64>>,
    /// Lengths of the files.
    lengths: BTreeMap<String, usize>,
    stdout: String,
    /// What pysamp said.
    lines: Vec<String>,
}

fn run(python: &Interpreter, mode: &str, options: &str) -> Result<Left, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = directory.path();
    let mut program = command(python, "controlled.py", &[mode, &path.display().to_string()]);
    let output = path.join("%p");
    let value = format!("{options},format=collapsed,output={}", output.display());
    program.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", value);
    if mode == "taken_before" {
        // SAFETY: signal is async-signal-safe.
        unsafe {
            program.pre_exec(|| {
                libc::signal(libc::SIGUSR2, libc::SIG_IGN);
                Ok(())
            });
        }
    }
    let ended = run_to_end(&mut program)?;
    let stderr = String::from_utf8_lossy(&ended.output.stderr).into_owned();
    ensure(ended.output.status.success(), || format!("{mode}: {stderr}"))?;
    let (mut files, mut lengths) = (BTreeMap::new(), BTreeMap::new());
    for entry in path.read_dir().map_err(|error| error.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mode = entry.metadata().map_err(|error| error.to_string())?.permissions().mode();
        ensure(mode & 0o777 == 0o600, || format!("{name} is {mode:o}"))?;
        let text = fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
        lengths.insert(name.clone(), text.len());
        let mut functions = HashMap::new();
        for stack in Run::of("", &text)?.collapsed {
            for frame in stack.python() {
                *functions.entry(frame.name.clone()).or_default() += stack.count;
            }
        }
        files.insert(name, functions);
    }
    let stdout = String::from_utf8_lossy(&ended.output.stdout).into_owned();
    let lines = stderr.lines().map(str::to_owned).collect();
    Ok(Left { pid: ended.pid, files, lengths, stdout, lines })
}

impl Left {
    /// A process's files are these, with these functions in them and those not.
    fn expect(&self, pid: u32, files: &[(&str, &[&str], &[&str])]) -> Result<(), String> {
        let own = |name: &&String| name.split('.').next() == Some(&pid.to_string());
        let found: Vec<&String> = self.files.keys().filter(own).collect();
        let wanted: Vec<String> = files.iter().map(|(name, ..)| format!("{pid}{name}")).collect();
        ensure(found.iter().copied().eq(&wanted), || {
            format!("{found:?} and not {wanted:?}: {:?}", self.lines)
        })?;
        for ((_, present, absent), name) in files.iter().zip(wanted) {
            let found = &self.files[&name];
            let samples = |function: &&str| found.get(*function).copied().unwrap_or(0);
            let is_right = present.iter().all(|function| samples(function) > STRAY)
                && absent.iter().all(|function| samples(function) <= STRAY);
            ensure(is_right, || format!("{name}: {present:?}, not {absent:?}: {found:?}"))?;
        }
        Ok(())
    }

    fn said(&self, wanted: &[&str]) -> Result<(), String> {
        let is_so = self.lines.len() == wanted.len()
            && self.lines.iter().zip(wanted).all(|(line, part)| line.contains(part));
        ensure(is_so, || format!("not {wanted:?}: {:?}", self.lines))
    }
}

#[test]
fn a_signal_writes_what_there_is_so_far() {
    on_each(Cores::one, |python| {
        let left = run(python, "forked", "control=USR2")?;
        let pids: BTreeSet<u32> =
            left.files.keys().filter_map(|name| name.split('.').next()?.parse().ok()).collect();
        ensure(pids.len() == 2 && pids.contains(&left.pid), || format!("{:?}", left.lines))?;
        for pid in pids {
            left.expect(
                pid,
                &[
                    ("", &["one", "two", "three"], &[]),
                    (".0001", &["one"], &["two", "three"]),
                    (".0002", &["one", "two"], &["three"]),
                ],
            )?;
        }
        left.said(&["wrote"; 6])
    });
}

#[test]
fn paused_a_signal_begins_and_the_next_writes() {
    on_each(Cores::one, |python| {
        let left = run(python, "toggled", "control=USR2,paused")?;
        let others = ["before", "between"];
        left.expect(
            left.pid,
            &[
                (".0001", &["inside"], &[&others[..], &["again"]].concat()),
                (".0002", &["again"], &[&others[..], &["inside"]].concat()),
            ],
        )?;
        left.said(&["wrote", "wrote"])?;
        let left = run(python, "paused_again", "control=USR2,paused")?;
        left.expect(left.pid, &[(".0001", &["inside"], &["after"])])?;
        left.said(&["wrote"])?;
        let left = run(python, "never_begun", "control=SIGUSR2,paused")?;
        left.expect(left.pid, &[])?;
        left.said(&["nothing was sampled"])
    });
}

#[test]
fn the_program_has_the_signal_if_it_wants_it() {
    on_each(Cores::one, |python| {
        let left = run(python, "taken_before", "control=USR2")?;
        left.expect(left.pid, &[("", &["one", "two"], &[])])?;
        left.said(&["the program uses SIGUSR2", "wrote"])?;
        let left = run(python, "taken_later", "control=USR2")?;
        left.expect(left.pid, &[("", &["one"], &[])])?;
        left.said(&["wrote"])
    });
}

#[test]
fn a_rotation_writes_each_period_and_begins_anew() {
    on_each(Cores::one, |python| {
        let left = run(python, "rotated", "rotate=250ms")?;
        let files: Vec<_> = left.files.values().collect();
        let [first, .., last] = files.as_slice() else {
            return Err(format!("{} files: {:?}", files.len(), left.lines));
        };
        let has = |file: &HashMap<String, u64>, function| file.contains_key(function);
        let is_anew = has(last, "last") && !has(last, "first") && !has(first, "last");
        ensure(is_anew && files.iter().any(|file| has(file, "first")), || format!("{files:?}"))?;
        for (number, name) in (1..).zip(left.files.keys()) {
            let wanted = format!("{}.{number:04}", left.pid);
            ensure(*name == wanted, || format!("{name}, not {wanted}"))?;
        }
        ensure(files.len() >= 4, || format!("{} files", files.len()))?;
        left.said(&[&format!("wrote {} profiles, the last to", files.len())])
    });
}

#[test]
fn sampling_begins_and_ends_when_it_should() {
    on_each(Cores::one, |python| {
        let left = run(python, "delayed", "delay=400ms")?;
        left.expect(left.pid, &[("", &["late"], &["early"])])?;
        let left = run(python, "timed", "duration=700ms")?;
        left.expect(left.pid, &[("", &["in_time"], &["too_late"])])?;
        left.said(&["wrote"])?;
        let length = left.lengths.values().next().map(usize::to_string);
        ensure(length.as_deref() == Some(left.stdout.trim()), || {
            format!("{length:?} bytes, but {} before the exit", left.stdout)
        })
    });
}
