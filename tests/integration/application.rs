//! The application never notices: it prints, sees and ends the same, profiled or not.

use std::fs;
use std::process::{Command, Output};

use crate::support::{
    Cores, Interpreter, Run, command, ensure, library, on_each, profile, profile_command,
    run_to_end,
};

/// How endings.py can end, and whether pysamp has a say before the process is gone.
const ENDINGS: [(&str, bool); 26] = [
    ("return", true),
    ("exit 3", true),
    ("exit with a message", true),
    ("an exception", true),
    ("interrupted", false),
    ("os._exit", true),
    ("abort", true),
    ("SIGTERM", false),
    ("SIGTERM, handled", true),
    ("SIGKILL", false),
    ("SIGSEGV", false),
    ("an alarm", true),
    ("exec", true),
    ("exec that fails", true),
    ("forked child that returns", true),
    ("forked child that leaves at once", true),
    ("forked child of a thread", true),
    ("forked child of a thread, which starts another", true),
    ("pool in a thread", true),
    ("forked child that executes", true),
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
    let make = || command(python, "endings.py", &[ending]);
    let plain = run_to_end(&mut make())?.output;
    PROTOCOLS.iter().map(|options| compared(make(), ending, options, &plain)).collect()
}

/// Compares a profiled run to one without pysamp.
pub fn compared(
    mut command: Command,
    ending: &str,
    options: &str,
    plain: &Output,
) -> Result<Run, String> {
    let run = profile_command(&mut command, options)?;
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
        for (ending, children) in [
            ("return", 0),
            ("children", 1),
            ("forked child that returns", 1),
            ("forked child of a thread", 1),
            ("forked child of a thread, which starts another", 1),
            ("pool in a thread", 2),
            ("forked child that executes", 1),
        ] {
            let run = profile(python, "endings.py", &[ending], "rate=1khz")?;
            ensure(run.followed.len() == children, || {
                format!("{ending}: profiles of {:?}: {}", run.followed, run.stderr)
            })?;
        }
        Ok(())
    });
}

/// A second program takes the process; both leave a profile, under the same name but for a number.
#[test]
fn programs_that_execute_another_leave_a_profile() {
    on_each(Cores::one, |python| {
        let run = profile(python, "endings.py", &["exec"], "rate=1khz")?;
        let lines = run.pysamp_lines();
        let is_told = lines.len() == 2 && lines[1].contains("-2: ");
        ensure(is_told && run.samples() > 20, || format!("{} samples: {lines:?}", run.samples()))?;
        let failed = profile(python, "endings.py", &["exec that fails"], "rate=1khz")?;
        let lines = failed.pysamp_lines();
        // The programs that are not there are seen before, the one that is none only then.
        let is_told = lines.len() == 2 && failed.samples() > 50 && !lines[1].contains("-2: ");
        ensure(is_told, || format!("{} samples: {lines:?}", failed.samples()))
    });
}

/// `os.fork` counts the threads, and says so.
#[test]
fn forks_are_not_warned_of() {
    on_each(Cores::one, |python| {
        for fork in ["fork()", "forkpty()[0]"] {
            let code = format!(
                "import os, logging\n\
                 def wait():\n for n in range(300): sum(range(3000))\n\
                 def callback(): sum(range(3000))\n\
                 os.register_at_fork(after_in_parent=callback)\n\
                 wait()\n\
                 for n in range(5):\n child = os.{fork}\n if not child: os._exit(0)\n os.waitpid(child, 0)\n\
                 wait()\n\
                 with open('/proc/self/stat') as stat: print(stat.read().split()[19])\n"
            );
            let mut forking = Command::new(&python.path);
            forking.args(["-W", "always", "-c", &code]).env_remove("PYTHONSAMPLE");
            let run = profile_command(&mut forking, "rate=1khz")?;
            let own = run.own_stderr();
            ensure(own.is_empty(), || format!("{fork}: {own}"))?;
            // The sampler is back.
            ensure(run.stdout == "2\n", || format!("{fork}: {} threads", run.stdout))?;
            ensure(run.samples() > 10, || format!("{fork}: {}", run.stderr))?;
        }
        Ok(())
    });
}

/// Whoever reads what a child prints on stderr reads nothing of pysamp's.
#[test]
fn children_whose_stderr_is_captured_stay_silent() {
    const CODE: &str = "import os, subprocess, sys, time\n\
        def stay(): [time.sleep(0.001) for n in range(50)]\n\
        stay()\n\
        if sys.argv[1:]:\n if os.fork(): os.wait()\n stay(); sys.exit(3)\n\
        own = [sys.executable, '-c', os.environ['CODE'], 'child']\n\
        child = subprocess.run(own, stderr=subprocess.PIPE)\n\
        print(child.returncode, child.stderr)\n";
    on_each(Cores::one, |python| {
        let mut parent = Command::new(&python.path);
        parent.args(["-W", "ignore", "-c", CODE]).env_remove("PYTHONSAMPLE").env("CODE", CODE);
        let run = profile_command(&mut parent, "rate=1khz")?;
        ensure(run.stdout == "3 b''\n", || run.stdout.clone())?;
        let lines = run.pysamp_lines().len();
        ensure(lines == 1 && run.followed.len() == 2, || {
            format!("{lines} lines, followed {:?}: {}", run.followed, run.stderr)
        })
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
