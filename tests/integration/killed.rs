//! Programs that are killed, or whose profile cannot be written: what was recorded is not lost.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pysamp::profile::{Profile, recording};

use crate::support::{Cores, Interpreter, command, ensure, library, on_each, run_to_end};

const PYSAMP: &str = env!("CARGO_BIN_EXE_pysamp");

/// What is not in a recording is what came after the last sample, and what the loaded machine
/// makes of that.
const MOST_MISSING: Duration = Duration::from_millis(150);

/// A program with a recording in a directory of its own.
fn recorded(python: &Interpreter, arguments: &[&str], directory: &Path) -> Command {
    let mut command = command(python, "dies.py", arguments);
    command.current_dir(directory).env("LD_PRELOAD", library());
    command.env("PYTHONSAMPLE", "format=collapsed,output=out.txt");
    command
}

/// Starts it, and waits until its code runs.
fn begun(command: &mut Command) -> Result<Child, String> {
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| error.to_string())?;
    let mut line = String::new();
    let stdout = child.stdout.take().map(BufReader::new);
    stdout.map(|mut stdout| stdout.read_line(&mut line));
    ensure(line == "begins\n", || format!("it printed {line:?}"))?;
    Ok(child)
}

/// The only recording in a directory.
fn only_recording(directory: &Path) -> Result<PathBuf, String> {
    let entries = directory.read_dir().map_err(|error| error.to_string())?.flatten();
    let paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    match paths.as_slice() {
        [only] if only.extension().is_some_and(|extension| extension == "pysamp") => {
            Ok(only.clone())
        }
        _ => Err(format!("it left {paths:?}")),
    }
}

/// What `pysamp report` makes of a recording: another one.
fn report(recording: &Path) -> Result<Profile, String> {
    let mut report = Command::new(PYSAMP);
    let output = report.args(["report", "--recording", "-o", "-"]).arg(recording).output();
    let output = output.map_err(|error| error.to_string())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success() && stderr.is_empty(), || format!("report: {stderr}"))?;
    let (profile, damage) = recording::read(&output.stdout).map_err(|error| error.to_string())?;
    ensure(damage.is_none(), || format!("{damage:?}"))?;
    Ok(profile)
}

/// The time that all samples stand for.
fn weight(profile: &Profile) -> Duration {
    Duration::from_nanos(profile.samples.iter().map(|sample| sample.weight_ns).sum())
}

fn shows_the_program(profile: &Profile) -> Result<(), String> {
    let is_there = |name: &str| profile.functions.iter().any(|function| &*function.name == name);
    ensure(is_there("leaf") && is_there("busy"), || {
        format!("its functions are {:?}", profile.functions)
    })
}

#[test]
fn the_whole_life_is_in_the_recording() {
    on_each(Cores::one, |python| {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let start = Instant::now();
        let mut child = begun(&mut recorded(python, &["return", "60"], directory.path()))?;
        let code_began = Instant::now();
        thread::sleep(Duration::from_millis(1200));
        let at_least = code_began.elapsed().saturating_sub(MOST_MISSING);
        child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
        let at_most = start.elapsed();
        let profile = report(&only_recording(directory.path())?)?;
        shows_the_program(&profile)?;
        let weight = weight(&profile);
        ensure((at_least..=at_most).contains(&weight), || {
            format!("{weight:?} are recorded of {at_least:?} to {at_most:?}")
        })
    });
}

#[test]
fn however_it_is_killed_there_is_a_profile() {
    on_each(Cores::one, |python| {
        for (ending, signal) in
            [("return", libc::SIGTERM), ("abort", libc::SIGABRT), ("segfault", libc::SIGSEGV)]
        {
            let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
            let seconds = if signal == libc::SIGTERM { "60" } else { "0.3" };
            let arguments = [ending, seconds];
            let mut child = begun(&mut recorded(python, &arguments, directory.path()))?;
            if signal == libc::SIGTERM {
                thread::sleep(Duration::from_millis(300));
                let pid = child.id().to_string();
                let sent = Command::new("kill").arg(pid).status();
                ensure(sent.is_ok_and(|status| status.success()), || "no kill".to_owned())?;
            }
            let status = child.wait().map_err(|error| error.to_string())?;
            ensure(status.signal() == Some(signal), || format!("{ending}: {status}"))?;
            // Whoever gets to write the profile leaves no recording.
            if let Ok(written) = fs::read_to_string(directory.path().join("out.txt")) {
                ensure(written.contains(":leaf:"), || format!("{ending}: {written}"))?;
                continue;
            }
            let profile = report(&only_recording(directory.path())?)?;
            shows_the_program(&profile).map_err(|why| format!("{ending}: {why}"))?;
        }
        Ok(())
    });
}

#[test]
fn nothing_is_left_of_a_recording_that_is_not_needed() {
    on_each(Cores::one, |python| {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let ended = run_to_end(&mut recorded(python, &["return", "0.3"], directory.path()))?;
        let left = directory.path().read_dir().map_err(|error| error.to_string())?;
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        let stderr = String::from_utf8_lossy(&ended.output.stderr);
        ensure(left == ["out.txt"], || format!("{left:?} are left: {stderr}"))
    });
}

/// Nothing of pysamp's can be written, or only so little: the program does not notice.
#[test]
fn a_full_disk_costs_the_profile_only() {
    on_each(Cores::one, |python| {
        // In blocks of 512 bytes: no recording, and one that has room but no output beside it.
        for (blocks, is_kept) in [("0", false), ("520", true)] {
            let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
            let recorded = recorded(python, &["return", "0.3"], directory.path());
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"]);
            limited.arg(recorded.get_program()).args(recorded.get_args());
            limited.current_dir(&directory);
            for (name, value) in recorded.get_envs() {
                value.map(|value| limited.env(name, value));
            }
            // A page is larger than what there is room for, together with its script.
            limited.env("PYTHONSAMPLE", "format=html,output=/dev/full");
            let ended = run_to_end(&mut limited)?.output;
            let stderr = String::from_utf8_lossy(&ended.stderr);
            ensure(ended.status.success() && ended.stdout == b"begins\nends\n", || {
                format!("{blocks} blocks: {}: {stderr}", ended.status)
            })?;
            let says = stderr.lines().count() == 1
                && stderr.contains("cannot write '/dev/full'")
                && stderr.contains(".pysamp") == is_kept;
            ensure(says, || format!("{blocks} blocks: {stderr}"))?;
            if is_kept {
                shows_the_program(&report(&only_recording(directory.path())?)?)?;
            }
        }
        Ok(())
    });
}

/// Directories that exist, and in which not even root may make a file.
#[test]
fn a_read_only_directory_costs_the_profile_only() {
    on_each(Cores::one, |python| {
        for directory in ["/sys", "/proc"] {
            let told = tempfile::tempdir().map_err(|error| error.to_string())?;
            let mut recorded = recorded(python, &["return", "0.3"], Path::new(directory));
            let ended = run_to_end(recorded.env("PYSAMP_RUN_DIR", told.path()))?.output;
            let stderr = String::from_utf8_lossy(&ended.stderr);
            ensure(ended.status.success() && ended.stdout == b"begins\nends\n", || {
                format!("{directory}: {}: {stderr}", ended.status)
            })?;
            // Or the command would think that there was no Python.
            let told = told.path().read_dir().map_err(|error| error.to_string())?;
            let told: Vec<_> = told.flatten().map(|entry| entry.path()).collect();
            let is_declined = |path: &PathBuf| path.extension().is_some_and(|it| it == "declined");
            ensure(told.iter().any(is_declined), || format!("{directory}: {told:?}"))?;
            let says = stderr.lines().count() == 1 && stderr.contains("pysamp: cannot write");
            ensure(says, || format!("{directory}: {stderr}"))?;
        }
        Ok(())
    });
}

/// Storing beyond the end of a file ends a process, unless it is seen to.
#[test]
fn a_recording_may_be_cut_under_the_program() {
    on_each(Cores::one, |python| {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = directory.path().to_str().unwrap_or_default();
        let arguments = ["cut recordings", "0.1", path];
        for memory in ["direct", "syscall"] {
            let mut cut = recorded(python, &arguments, directory.path());
            cut.env("PYTHONSAMPLE", format!("format=collapsed,output=out.txt,memory={memory}"));
            let ended = run_to_end(&mut cut)?;
            let stderr = String::from_utf8_lossy(&ended.output.stderr);
            let went_on = ended.output.stdout == b"begins\nends\n";
            ensure(went_on && stderr.contains("wrote out.txt"), || format!("{memory}: {stderr}"))?;
        }
        Ok(())
    });
}

#[test]
fn run_shows_what_the_killed_program_recorded() {
    on_each(Cores::one, |python| {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let run = |options: &[&str]| {
            let dies = command(python, "dies.py", &["segfault", "0.3"]);
            let mut run = Command::new(PYSAMP);
            run.arg("run").args(options).arg("--").arg(dies.get_program()).args(dies.get_args());
            run.current_dir(&directory).env_remove("LD_PRELOAD").env_remove("PYTHONSAMPLE");
            run_to_end(&mut run).map(|ended| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let output = ended.output;
                (output.status.signal(), text(&output.stdout), text(&output.stderr))
            })
        };
        let (signal, stdout, stderr) = run(&[])?;
        ensure(signal == Some(libc::SIGSEGV), || format!("{signal:?}: {stderr}"))?;
        ensure(stdout.contains("Profile Stats:") && stdout.contains("(leaf)"), || stdout.clone())?;
        let sentence =
            "pysamp: 'dies.py' was killed by signal 11; its profile up to then follows\n";
        ensure(stderr == sentence, || stderr.clone())?;
        let (signal, _, stderr) = run(&["--collapsed", "-o", "out.txt"])?;
        ensure(signal == Some(libc::SIGSEGV), || format!("{signal:?}: {stderr}"))?;
        let left = directory.path().read_dir().map_err(|error| error.to_string())?.flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        ensure(left == ["out.txt"], || format!("{left:?} are left: {stderr}"))?;
        let written = fs::read_to_string(directory.path().join("out.txt")).unwrap_or_default();
        ensure(written.contains(":leaf:"), || format!("{written}: {stderr}"))
    });
}
