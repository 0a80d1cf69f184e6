//! Living with others, and with little: what an application does to its process works the same.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::application::compared;
use crate::support::{
    Cores, Interpreter, Run, command, ensure, library, on_each, profile, run_to_end,
};

/// What living.py can be told, and whether it ends in a way that leaves a profile.
const WAYS: [&str; 15] = [
    "faulthandler",
    "signals",
    "timers",
    "blocked signals",
    "tracing",
    "subinterpreters",
    "stopped",
    "one processor",
    "few descriptors",
    "little memory",
    "forbidden reads",
    "reads forbidden later",
    "reads forbidden to all",
    "threads forbidden later",
    "daemon",
];

/// What a shell can do to a process before it starts.
const LIMITS: [&str; 7] = [
    "ulimit -n 6",
    "ulimit -s 128",
    "ulimit -s unlimited",
    "ulimit -v 400000",
    "ulimit -c 0; ulimit -f 1000",
    "exec 0<&- ",
    "umask 777",
];

/// A shell's words that run what comes behind them without `/proc`.
const WITHOUT_PROC: &str =
    "exec unshare --mount sh -c 'mount -t tmpfs none /proc && exec \"$@\"' sh";

/// A way under some limit.
fn limited(python: &Interpreter, limit: &str, before: &[&str], way: &str) -> Command {
    let mut shell = Command::new("sh");
    let own = command(python, "living.py", &[way]);
    let words: Vec<_> = own.get_args().map(|word| word.to_owned()).collect();
    shell.arg("-c").arg(format!("{limit}; exec \"$@\"")).arg("sh").arg(own.get_program());
    shell
        .args(before)
        .args(words)
        .envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env_remove("LD_PRELOAD").env_remove("PYTHONSAMPLE");
    shell
}

fn same(make: impl Fn() -> Command, way: &str, options: &str) -> Result<Run, String> {
    let plain = run_to_end(&mut make())?.output;
    compared(make(), way, options, &plain)
}

fn all<T: Copy>(ways: &[T], check: impl Fn(T) -> Result<(), String>) -> Result<(), String> {
    let faults: Vec<String> = ways.iter().filter_map(|&way| check(way).err()).collect();
    ensure(faults.is_empty(), || faults.join("\n"))
}

#[test]
fn whatever_it_does_works_the_same() {
    on_each(Cores::one, |python| {
        all(&WAYS, |way| {
            let run = same(|| command(python, "living.py", &[way]), way, "rate=1khz")?;
            ensure(run.said_samples()? > 20, || format!("{way}: {}", run.stderr))
        })
    });
}

/// What pysamp opens meanwhile takes no number of the program's.
#[test]
fn the_lowest_descriptor_is_the_programs() {
    on_each(Cores::one, |python| {
        let way = "numbers of descriptors";
        let run = same(|| command(python, "living.py", &[way]), way, "rate=1khz,rotate=150ms")?;
        ensure(run.stderr.contains(" profiles, the last to "), || run.stderr.clone())
    });
}

#[test]
fn under_limits_it_works_the_same() {
    on_each(Cores::one, |python| {
        all(&LIMITS, |limit| {
            let run = same(|| limited(python, limit, &[], "ordinary"), limit, "rate=1khz")?;
            // A limit may leave no room for the profile, but never silently.
            let lines = run.pysamp_lines().len();
            ensure(lines >= 1, || format!("{limit}: nothing was said: {}", run.stderr))
        })
    });
}

/// The place of a closed descriptor is not taken, and what was made in trying does not stay.
#[test]
fn a_closed_descriptor_leaves_no_other_files() {
    on_each(Cores::one, |python| {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let output = directory.path().join("%p.txt");
        let mut program = limited(python, "exec 0<&-", &[], "ordinary");
        program.env("LD_PRELOAD", library());
        program.env("PYTHONSAMPLE", format!("collapsed,output={}", output.display()));
        run_to_end(&mut program)?;
        let left = directory.path().read_dir().map_err(|error| error.to_string())?.flatten();
        let names: Vec<_> = left.map(|file| file.file_name()).collect();
        let are_profiles = names.iter().all(|name| name.to_string_lossy().ends_with(".txt"));
        ensure(are_profiles && !names.is_empty(), || format!("{names:?} are left"))
    });
}

/// Without threads and `/proc` there is still the program, and one line at most for each process.
#[test]
fn what_is_not_there_is_done_without() {
    on_each(Cores::one, |python| {
        let run = same(|| command(python, "living.py", &["forbidden threads"]), "", "rate=1khz")?;
        let lines = run.pysamp_lines();
        let is_told = lines.last().is_some_and(|line| line.contains("thread cannot be started"));
        ensure(is_told, || format!("no threads: {lines:?}"))?;

        let run =
            same(|| command(python, "living.py", &["reads forbidden to all"]), "", "rate=1khz")?;
        let lines = run.pysamp_lines();
        let is_told = lines.len() == 2 && lines[0].contains("process_vm_readv is forbidden");
        ensure(is_told, || format!("no reads: {lines:?}"))
    });
}

#[test]
fn without_proc_it_works_the_same() {
    let mut tried = Command::new("sh");
    tried.args(["-c", &format!("{WITHOUT_PROC} true")]);
    if run_to_end(&mut tried).is_ok_and(|ended| !ended.output.status.success()) {
        println!("not tried: this machine lets nobody hide /proc");
        return;
    }
    on_each(Cores::one, |python| {
        let limit = format!("{WITHOUT_PROC} \"$@\"");
        let run = same(|| limited(python, &limit, &[], "ordinary"), "no /proc", "rate=1khz")?;
        ensure(run.said_samples()? > 20, || run.stderr.clone())
    });
}

/// A filter may kill the sampler's thread. Nobody waits for it then.
#[test]
fn a_thread_that_is_killed_is_not_waited_for() {
    on_each(Cores::one, |python| {
        let start = Instant::now();
        let run = same(|| command(python, "living.py", &["reads that kill"]), "", "rate=1khz")?;
        let lines = run.pysamp_lines();
        let is_told = lines.len() == 1 && lines[0].contains("thread was killed");
        ensure(is_told, || format!("{lines:?}"))?;
        // Otherwise it would be a minute.
        ensure(start.elapsed() < Duration::from_secs(40), || format!("{:?}", start.elapsed()))
    });
}

/// A fault is reported by the faulthandler that was there before, and ends the process as ever.
#[test]
fn faults_are_reported_as_ever() {
    on_each(Cores::one, |python| {
        let make = || limited(python, "ulimit -c 0", &["-X", "faulthandler"], "fault");
        let plain = run_to_end(&mut make())?.output;
        let run = crate::support::profile_command(&mut make(), "rate=1khz")?;
        ensure(run.status == plain.status, || format!("{} for {}", run.status, plain.status))?;
        // Addresses differ from run to run.
        let expected = String::from_utf8_lossy(&plain.stderr).into_owned();
        let lines = |text: &str| -> Vec<String> {
            let python = text.lines().take_while(|line| !line.contains("C stack"));
            python.filter(|line| !line.contains("0x")).map(str::to_owned).collect()
        };
        let (found, expected) = (lines(&run.own_stderr()), lines(&expected));
        ensure(found == expected, || format!("{found:?} for {expected:?}"))
    });
}

/// Reads fail all the time there, at the moment in which the signals that tell of that are taken, too.
#[test]
fn the_signals_of_faults_can_be_taken_at_any_time() {
    on_each(Cores::all, |python| {
        let run = profile(python, "taking_faults.py", &["20"], "rate=1mhz")?;
        ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
        let truth = run.json()?;
        ensure(truth["ends"] == serde_json::json!({}), || truth["ends"].to_string())
    });
}
