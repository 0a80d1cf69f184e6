//! Runs programs under pysamp, as a user does, and reads the profile they leave.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pysamp::profile::{Profile, recording};

use super::Interpreter;

/// Longer than any program here runs, on a busy machine: what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(240);

/// A finished run and its profile.
pub struct Run {
    /// How the program ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it and pysamp printed.
    pub stderr: String,
    /// The profile; empty when there is none.
    pub collapsed: Vec<Stack>,
    /// The profile as it was written.
    pub text: String,
    /// Process ids of the other processes that left a profile.
    pub followed: Vec<u32>,
}

/// A process that ended.
pub struct Ended {
    /// Its process id.
    pub pid: u32,
    /// How it ended and what it printed.
    pub output: Output,
}

/// One line of a collapsed profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Native thread id.
    pub tid: u64,
    /// Root first.
    pub frames: Vec<FrameLine>,
    /// Number of samples.
    pub count: u64,
}

/// One frame of a collapsed profile. Bare frames such as `<GC>` have neither file nor line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameLine {
    /// Base name of the source file.
    pub file: String,
    /// Qualified name.
    pub name: String,
    /// Line being executed.
    pub line: u64,
}

impl Stack {
    fn parse(line: &str) -> Option<Self> {
        let (stack, count) = line.rsplit_once(' ')?;
        let mut parts = stack.split(';');
        let tid = parts.next()?.strip_prefix("tid:")?.parse().ok()?;
        let frames = parts.map(FrameLine::parse).collect::<Option<_>>()?;
        Some(Self { tid, frames, count: count.parse().ok()? })
    }

    /// The Python frames: without bare ones.
    pub fn python(&self) -> Vec<&FrameLine> {
        self.frames.iter().filter(|frame| !frame.file.is_empty()).collect()
    }
}

impl FrameLine {
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with('<') && text.ends_with('>') && !text.contains(':') {
            return Some(Self { file: String::new(), name: text.to_owned(), line: 0 });
        }
        let (place, line) = text.rsplit_once(':')?;
        let (file, name) = place.split_once(':')?;
        Some(Self { file: file.to_owned(), name: name.to_owned(), line: line.parse().ok()? })
    }
}

impl Run {
    fn new(output: &Output, text: String) -> Result<Self, String> {
        let parse =
            |line| Stack::parse(line).ok_or_else(|| format!("not a collapsed line: {line}"));
        Ok(Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            collapsed: text.lines().map(parse).collect::<Result<_, _>>()?,
            text,
            followed: Vec::new(),
        })
    }

    /// A run that was not: to try the tests' own judgement on.
    pub fn of(stdout: &str, collapsed: &str) -> Result<Self, String> {
        let (stdout, stderr) = (stdout.as_bytes().to_vec(), Vec::new());
        let output = Output { status: ExitStatus::default(), stdout, stderr };
        Self::new(&output, collapsed.to_owned())
    }

    /// What the program printed as its last line, which is JSON.
    pub fn json(&self) -> Result<serde_json::Value, String> {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|error| format!("{error}: {}", self.stderr))
    }

    /// The lines that pysamp added to stderr.
    pub fn pysamp_lines(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with("pysamp: ")).collect()
    }

    /// What the program itself printed on stderr.
    pub fn own_stderr(&self) -> String {
        let own = |line: &&str| !line.starts_with("pysamp: ");
        self.stderr.split_inclusive('\n').filter(own).collect()
    }

    /// All samples taken.
    pub fn samples(&self) -> u64 {
        self.collapsed.iter().map(|stack| stack.count).sum()
    }

    /// How many samples the last process says it took.
    pub fn said_samples(&self) -> Result<u64, String> {
        let line = self.pysamp_lines().last().copied().unwrap_or_default().to_owned();
        let (before, _) = line.split_once(" samples").ok_or(format!("no samples: {line}"))?;
        before.rsplit(' ').next().unwrap_or_default().parse().map_err(|_| line.clone())
    }

    /// Share of the samples, 0 to 1, that pysamp says failed.
    pub fn failed_share(&self) -> Result<f64, String> {
        let line = self.pysamp_lines().last().copied().unwrap_or_default().to_owned();
        let (before, _) = line.split_once("% failed").ok_or(format!("no share failed: {line}"))?;
        let number = before.rsplit([' ', '(']).next().unwrap_or_default();
        number.parse::<f64>().map(|percent| percent / 100.0).map_err(|_| line.clone())
    }
}

/// The library that these tests were built with. Cargo does not copy it from
/// `deps`, where the tests are as well, to where `cargo build` leaves it.
pub fn library() -> PathBuf {
    let built = || env::current_exe().unwrap().with_file_name("libpysamp.so");
    let library = env::var_os("PYSAMP_LIBRARY").map_or_else(built, PathBuf::from);
    assert!(library.is_file(), "{} is not built", library.display());
    library
}

/// One of the Python programs in `tests/programs`.
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

/// An interpreter about to run one of the programs, not profiled yet.
pub fn command(interpreter: &Interpreter, script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(&interpreter.path);
    // Versions side by side must not write each other's bytecode.
    command.arg("-B").arg(program(script)).args(arguments);
    command.env_remove("LD_PRELOAD").env_remove("PYTHONSAMPLE");
    // Where a lookup costs depends on the seed, and two runs are compared.
    command.env("PYTHONHASHSEED", "0");
    command
}

/// Runs a command to its end; one that hangs is killed, and is an error.
pub fn run_to_end(command: &mut Command) -> Result<Ended, String> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawned.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
                return Err(format!("{command:?} hangs"));
            }
        }
    };
    let read = |one: thread::JoinHandle<io::Result<Vec<u8>>>| one.join().unwrap().unwrap();
    let output = Output { status, stdout: read(stdout), stderr: read(stderr) };
    Ok(Ended { pid: child.id(), output })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes))?;
        Ok(bytes)
    })
}

/// Profiles a program into a recording. Returns what the program printed as its last line, which is
/// JSON, and what was recorded.
pub fn recorded(
    interpreter: &Interpreter,
    script: &str,
    arguments: &[&str],
    options: &str,
) -> Result<(serde_json::Value, Profile), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = directory.path().join("recording");
    let options = format!("{options},recording,output={}", file.display());
    let mut command = command(interpreter, script, arguments);
    command.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", options);
    let ended = run_to_end(&mut command)?;
    let run = Run::new(&ended.output, String::new())?;
    let read = recording::read_file(&file).map_err(|error| format!("{error}: {}", run.stderr))?;
    match read {
        (profile, None) => Ok((run.json()?, profile)),
        (_, Some(damage)) => Err(damage.to_string()),
    }
}

/// Profiles a program with the given options of `PYTHONSAMPLE`, such as `rate=10khz`.
pub fn profile(
    interpreter: &Interpreter,
    script: &str,
    arguments: &[&str],
    options: &str,
) -> Result<Run, String> {
    profile_command(&mut command(interpreter, script, arguments), options)
}

/// Profiles whatever a command runs; it may have something before the interpreter.
pub fn profile_command(command: &mut Command, options: &str) -> Result<Run, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let pattern = directory.path().join("%p");
    let options = format!("{options},format=collapsed,output={}", pattern.display());
    command.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", options);
    let ended = run_to_end(command)?;
    let file = directory.path().join(ended.pid.to_string());
    let mut run = Run::new(&ended.output, fs::read_to_string(file).unwrap_or_default())?;
    let files = directory.path().read_dir().map_err(|error| error.to_string())?;
    let pids = files.flatten().filter_map(|file| file.file_name().to_str()?.parse().ok());
    run.followed = pids.filter(|pid| *pid != ended.pid).collect();
    Ok(run)
}
