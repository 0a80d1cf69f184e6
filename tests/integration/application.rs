//! The application never notices: it prints, sees and ends the same, profiled or not.

use std::fs;
use std::process::{Command, Output};

use crate::support::{
    Cores, Interpreter, Run, command, ensure, library, on_each, profile, run_to_end,
};

/// How endings.py can end, and whether pysamp has a say before the process is gone.
const ENDINGS: [(&str, bool); 21] = [
    ("return", true),
    ("exit 3", true),
    ("exit with a message", true),
    ("an exception", true),
    ("interrupted", false),
    ("os._exit", false),
    ("abort", false),
    ("SIGTERM", false),
    ("SIGTERM, handled", true),
    ("SIGKILL", false),
    ("SIGSEGV", false),
    ("an alarm", true),
    ("exec", false),
    ("forked child that returns", true),
    ("forked child that leaves at once", true),
    ("children", true),
    ("a thread that ends later", true),
    ("a daemon thread left running", true),
    ("all descriptors closed", false),
    ("a closed stderr", false),
    ("half a million bytes", true),
];

const PROTOCOLS: [&str; 2] = ["rate=1khz", "rate=1khz,blocking"];

/// Compares a run without pysamp to one by each protocol, which it returns.
fn same_but_for_pysamp(python: &Interpreter, ending: &str) -> Result<Vec<Run>, String> {
    let plain = run_to_end(&mut command(python, "endings.py", &[ending]))?.output;
    PROTOCOLS.iter().map(|options| compared(python, ending, options, &plain)).collect()
}

fn compared(
    python: &Interpreter,
    ending: &str,
    options: &str,
    plain: &Output,
) -> Result<Run, String> {
    let run = profile(python, "endings.py", &[ending], options)?;
    let ending = format!("{ending} ({options})");
    let differ = |what: &str, found: &str, expected: &str| {
        let at = found.lines().zip(expected.lines()).find(|(one, other)| one != other);
        let lines = (found.lines().count(), expected.lines().count());
        format!("{ending}: {what} differs, first in {at:?}, lines {lines:?}: {}", run.stderr)
    };
    ensure(run.status == plain.status, || {
        format!("{ending}: ended with {}, but {} alone: {}", run.status, plain.status, run.stderr)
    })?;
    let expected = String::from_utf8_lossy(&plain.stdout);
    ensure(run.stdout == expected, || differ("stdout", &run.stdout, &expected))?;
    let expected = String::from_utf8_lossy(&plain.stderr);
    let own = run.own_stderr();
    ensure(own == expected, || differ("stderr", &own, &expected))?;
    Ok(run)
}

#[test]
fn every_ending_is_the_same() {
    on_each(Cores::one, |python| {
        let check = |(ending, written): (&str, bool)| {
            for run in same_but_for_pysamp(python, ending)? {
                let said = run.samples() > 0 && !run.pysamp_lines().is_empty();
                ensure(said || !written, || format!("{ending}: no profile: {}", run.stderr))?;
            }
            Ok(())
        };
        let faults: Vec<String> =
            ENDINGS.into_iter().filter_map(|ending| check(ending).err()).collect();
        ensure(faults.is_empty(), || faults.join("\n"))
    });
}

#[test]
fn what_it_sees_of_itself_is_the_same() {
    on_each(Cores::one, |python| same_but_for_pysamp(python, "a look around").map(|_| ()))
}

#[test]
fn child_processes_are_followed() {
    on_each(Cores::one, |python| {
        for (ending, children) in [("forked child that returns", 1), ("children", 1), ("return", 0)]
        {
            let run = profile(python, "endings.py", &[ending], "rate=1khz")?;
            ensure(run.followed.len() == children, || {
                format!("{ending}: profiles of {:?}: {}", run.followed, run.stderr)
            })?;
        }
        Ok(())
    });
}

/// A process that is over before, or while, the sampler starts.
#[test]
fn the_shortest_programs_end_well() {
    on_each(Cores::one, |python| {
        for code in ["", "import os; os._exit(3)", "import sys; sys.exit(3)", "1/0"] {
            for _ in 0..5 {
                let mut shortest = Command::new(&python.path);
                shortest.args(["-S", "-c", code]).env_remove("PYTHONSAMPLE");
                let plain = run_to_end(shortest.env_remove("LD_PRELOAD"))?.output;
                let options = "rate=10khz,format=collapsed,output=/dev/null";
                shortest.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", options);
                let found = run_to_end(&mut shortest)?.output;
                let stderr = String::from_utf8_lossy(&found.stderr);
                ensure(found.status == plain.status, || {
                    format!("{code}: {}, {stderr}", found.status)
                })?;
                ensure(found.stdout == plain.stdout, || format!("{code}: stdout differs"))?;
                let own = stderr.split_inclusive('\n').filter(|line| !line.starts_with("pysamp: "));
                let expected = String::from_utf8_lossy(&plain.stderr);
                ensure(own.collect::<String>() == expected, || format!("{code}: {stderr}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn without_options_a_flame_graph_is_left() {
    on_each(Cores::one, |python| {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut busy = command(python, "fib.py", &["--seconds", "0.3"]);
        let ended = run_to_end(busy.current_dir(&directory).env("LD_PRELOAD", library()))?;
        let stderr = String::from_utf8_lossy(&ended.output.stderr).into_owned();
        let file = format!("pysamp_{}.html", ended.pid);
        let page = fs::read_to_string(directory.path().join(&file))
            .map_err(|error| format!("{file}: {error}: {stderr}"))?;
        ensure(page.contains("fib.py"), || format!("{file} does not show fib.py"))?;
        let lines: Vec<&str> = stderr.lines().collect();
        let &[line] = lines.as_slice() else { return Err(format!("not one line: {stderr}")) };
        for part in ["pysamp: ", &file, "samples", "failed", "missed"] {
            ensure(line.contains(part), || format!("{part:?} is missing: {line}"))?;
        }
        let files = directory.path().read_dir().map_err(|error| error.to_string())?.count();
        ensure(files == 1, || format!("{files} files are left"))
    });
}
