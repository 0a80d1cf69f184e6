//! `pysamp run`: starts a program with the library in it, and shows what came of it.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::child::{self, Ending};
use super::formats::{FormatArgs, is_stdout, on_stdout, take_shown};
use super::realtime::Realtime;
use super::report::{show, unreadable};
use super::run_dir::{Outcome, Recording, RunDir};
use super::{Failure, browser, checks, complain, reason};
use crate::config::{
    AsyncMode, Config, ControlSignal, ENV_VARIABLE, Format, Memory, OutputTemplate, Perf,
    parse_async_mode, parse_duration, parse_overhead, parse_rate, parse_rotation, parse_signal,
};
use crate::export;
use crate::profile::{Pattern, Profile};
use crate::session::{Output, counts};

const USAGE: &str = "pysamp run [options] script.py [args]...
       pysamp run [options] -m module [args]...
       pysamp run [options] -- command [args]...";

const NOTES: &str = "\
Everything after the script, the module or the '--' belongs to the program. Its
input, output, exit code and signals are its own. Python processes that it
starts are profiled as well.

Environment:
  LD_PRELOAD    Profiles a program without this command, and leaves pysamp_PID.html:
                LD_PRELOAD=/path/to/libpysamp.so python3 app.py
                The library is beside pysamp or in ../lib.
  PYTHONSAMPLE  Options for that: most of the long ones above, without dashes and
                separated by commas: rate=5khz,svg,output=/tmp/p_%p.svg
                Or 0, which switches it off. 'pysamp run' does not read it.
  TMPDIR        Where 'pysamp run' keeps a directory while the program runs
                [default: /tmp]";

/// Run a Python program and profile it
#[derive(Args)]
#[command(override_usage = USAGE, after_help = NOTES)]
pub(super) struct RunArgs {
    /// A module and its arguments, as for python -m
    #[arg(short, value_name = "MODULE", num_args = 1.., allow_hyphen_values = true)]
    #[arg(conflicts_with = "program")]
    module: Vec<OsString>,

    /// The Python to run it, or a script, with [default: python3 or python on PATH]
    #[arg(long, value_name = "PATH")]
    python: Option<OsString>,

    /// Samples per second, such as 500hz, 10khz or 10000
    #[arg(short = 'r', long, value_name = "RATE", default_value = "1khz", value_parser = parse_rate)]
    #[arg(alias = "rate", allow_negative_numbers = true)]
    sampling_rate: Duration,

    /// Sample less often where it would take more of a processor's time than this, such as 1%
    #[arg(long, value_name = "SHARE", value_parser = parse_overhead)]
    max_overhead: Option<u32>,

    /// How long to sample, such as 30s or 5m; the program runs on [default: until it ends]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    #[arg(allow_negative_numbers = true)]
    duration: Option<Duration>,

    /// How long after the start of the interpreter to begin, such as 2s or 500ms
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    #[arg(allow_negative_numbers = true)]
    delay: Option<Duration>,

    /// Write a numbered profile of each period of this length, such as 60s
    #[arg(long, value_name = "TIME", value_parser = parse_rotation, help_heading = "Control")]
    #[arg(allow_negative_numbers = true)]
    rotate: Option<Duration>,

    /// Write a numbered profile at this signal, such as USR2, and sample on
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal, help_heading = "Control")]
    control: Option<ControlSignal>,

    /// With --control: the first signal begins sampling, the next writes and pauses, and so on
    #[arg(long, help_heading = "Control")]
    paused: bool,

    /// Sample every thread, which is the default
    #[arg(short, long)]
    all_threads: bool,

    /// Show only this thread, by name or id, such as MainThread; * stands for anything
    #[arg(long = "thread", value_name = "NAME|TID", value_parser = str::parse::<Pattern>)]
    threads: Vec<Pattern>,

    /// Hold threads still for each sample: slower, but right for the shortest functions too
    #[arg(long)]
    blocking: bool,

    /// Show where C code runs, with the function's or type's name where the interpreter tells it
    #[arg(long)]
    native: bool,

    /// Show the task that runs, and those that await it, in the place of asyncio's event loop, and
    /// below its frames the greenlet that runs
    #[arg(long)]
    async_aware: bool,

    /// With --async-aware: 'running' tasks and greenlets, or 'all', those that wait as well [default:
    /// running]
    #[arg(long, value_name = "MODE", value_parser = parse_async_mode)]
    async_mode: Option<AsyncMode>,

    /// Also record which bytecode instructions run, in the form that the interpreter has specialised
    /// them to: for the flame graph page, the heatmap, gecko, jsonl, binary and recordings
    #[arg(long)]
    opcodes: bool,

    /// On a terminal, show once a second how sampling goes: its rate, what failed and was missed, and
    /// what it costs
    #[arg(long)]
    realtime_stats: bool,

    /// Make one profile of the program and all processes that it starts, not one of each
    #[arg(long)]
    subprocesses: bool,

    #[arg(long, hide = true, default_value = "auto", value_parser = str::parse::<Memory>)]
    memory: Memory,

    /// Also tell perf and its like which Python functions run: by a map, or by a jitdump, in /tmp
    #[arg(long, value_name = "map|jitdump", value_parser = str::parse::<Perf>)]
    perf: Option<Perf>,

    /// File to write, or - for stdout; in its name %p is the process id, %t the start time, %n the program, %i the
    /// profile's number, %% a percent sign
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    #[arg(value_parser = OsStringValueParser::new().try_map(OutputTemplate::new))]
    output: Option<OutputTemplate>,

    #[command(flatten)]
    format: FormatArgs,

    /// A script and its arguments; after '--', any command and its arguments
    #[arg(value_name = "SCRIPT", trailing_var_arg = true)]
    program: Vec<OsString>,
}

/// What is to be started.
struct Target {
    /// The executable.
    path: PathBuf,
    /// Its name as it was given, which is what it gets to see.
    name: OsString,
    arguments: Vec<OsString>,
}

/// Starts the program, waits for it, and ends as it did.
pub(super) fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let after_dashes = is_after_dashes(std::env::args_os(), args.program.len());
    let target = args.target(after_dashes)?;
    let mut config = args.config()?;
    let only = match is_stdout(args.output.as_ref()) {
        true => Some(args.format.only(&config)?),
        false => None,
    };
    if config.output.is_none() {
        config.style = on_stdout(config.style);
    }
    checks::outputs(&config)?;
    checks::baseline(&config.style)?;
    if let Some(idle) = config.idle_option() {
        complain(&idle);
    }
    let mut written = config.clone();
    take_shown(&mut written);
    if args.format.browser {
        browser::check(&written.formats)?;
    }
    let library = checks::library()?;
    let run_dir = RunDir::new()?;
    let preload = run_dir.preload(&library, std::env::var_os("LD_PRELOAD"))?;

    let mut command = Command::new(&target.path);
    command.arg0(&target.name).args(&target.arguments);
    command.env("LD_PRELOAD", preload);
    command.env(ENV_VARIABLE, config.to_env_value());
    command.env("PYSAMP_RUN_DIR", run_dir.path());
    // What the user starts by the command speaks to the command's own stderr.
    command.env_remove("PYSAMP_STDERR");
    let is_told = args.realtime_stats && std::io::stderr().is_terminal();
    let beside = || is_told.then(|| Realtime::begin(run_dir.path()));
    let ended = child::run_to_end(&mut command, beside).map_err(|error| {
        Failure::usage(format!("cannot run '{}': {}", target.name.display(), reason(&error)))
    })?;
    if config.subprocesses {
        run_dir.settle();
    }
    let mut outcome = run_dir.finish(ended.pid, config.subprocesses);
    ended.signals.unblock();
    if config.subprocesses {
        unite(&mut outcome, &config, only, ended.pid);
    } else {
        recover(&mut outcome, &config, ended.pid, ended.ending);
    }
    let mut reported = report(&outcome, &target.name, ended.ending);
    if args.format.browser
        && let Err(failure) = browser::open(&written.formats, &outcome.written)
    {
        complain(&failure.sentence);
        reported = false;
    }
    Ok(match ended.ending {
        Ending::Killed(signal) => child::die_of(signal),
        Ending::Exited(0) if !reported => ExitCode::FAILURE,
        Ending::Exited(code) => ExitCode::from(code),
    })
}

/// Makes one profile of what all processes have left, those that were killed included. In one format only
/// it goes to stdout as it is made.
fn unite(outcome: &mut Outcome, config: &Config, only: Option<Format>, program: u32) {
    let mut profiles = Vec::new();
    let collected = std::mem::take(&mut outcome.collected);
    for Recording { path, read, .. } in collected.into_iter().chain(outcome.recordings.drain(..)) {
        match read {
            Ok((profile, damage)) => {
                profiles.push(profile);
                if let Some(damage) = damage {
                    complain(&damage.to_string());
                }
            }
            Err(error) => complain(&unreadable(&path, &error)),
        }
    }
    if profiles.is_empty() {
        return;
    }
    outcome.profiled = true;
    let processes = profiles.len();
    let profile = Profile::merge(profiles);
    let told = match processes {
        1 => counts(&profile.meta),
        several => format!("{several} processes: {}", counts(&profile.meta)),
    };
    if let Some(format) = only {
        match show(&profile, &[format], config) {
            Ok(()) => complain(&told),
            Err(failure) => {
                complain(&failure.sentence);
                (outcome.profiled, outcome.declined) = (false, true);
            }
        }
        return;
    }
    let mut config = config.clone();
    let shown = take_shown(&mut config);
    if !shown.is_empty() {
        let mut table = Vec::new();
        // Writing to memory does not fail.
        let viewed = profile.viewed(&config.view);
        let _ = export::write_all(&shown, &viewed, &config.style, &mut table);
        outcome.tables.push((program, table));
    }
    if config.formats.is_empty() {
        complain(&told);
        return;
    }
    let here = std::env::current_dir().unwrap_or_default();
    match Output::of_command(&config, here).deliver(&profile, None) {
        Ok(written) => outcome.written = written,
        Err(_) => {
            outcome.profiled = false;
            outcome.declined = true;
        }
    }
}

/// Makes the profiles of processes that recorded, but did not get to write theirs.
fn recover(outcome: &mut Outcome, config: &Config, program: u32, ending: Ending) {
    let mut config = config.clone();
    let shown = take_shown(&mut config);
    for Recording { pid, path, read } in std::mem::take(&mut outcome.recordings) {
        let (profile, damage) = match read {
            Ok(read) => read,
            Err(error) => {
                complain(&unreadable(&path, &error));
                continue;
            }
        };
        let name = &profile.meta.program;
        complain(&match ending {
            Ending::Killed(signal) if pid == program => {
                format!("'{name}' was killed by signal {signal}; its profile up to then follows")
            }
            _ => format!("'{name}', process {pid}, wrote no profile; what it recorded follows"),
        });
        if let Some(damage) = damage {
            complain(&damage.to_string());
        }
        outcome.profiled = true;
        if !shown.is_empty() {
            let mut table = Vec::new();
            let profile = profile.viewed(&config.view);
            // Writing to memory does not fail.
            let _ = export::write_all(&shown, &profile, &config.style, &mut table);
            outcome.tables.push((pid, table));
        }
        if config.formats.is_empty() {
            continue;
        }
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        match Output::of_command(&config, directory).deliver(&profile, Some(&path)) {
            Ok(written) => {
                if pid == program {
                    outcome.written = written;
                }
                let _ = std::fs::remove_file(path);
            }
            Err(_) => {
                outcome.profiled = false;
                outcome.declined = true;
            }
        }
    }
}

/// Shows the tables, or says why there is nothing to show; whether a profile was made and shown.
fn report(outcome: &Outcome, program: &OsStr, ending: Ending) -> bool {
    if outcome.tables.is_empty() {
        if !outcome.profiled && !outcome.declined {
            let program = program.display();
            complain(&match ending {
                Ending::Exited(_) => {
                    format!("no CPython ran in '{program}'; nothing was profiled")
                }
                Ending::Killed(signal) => {
                    format!("'{program}' was killed by signal {signal} and left no profile")
                }
            });
        }
        return outcome.profiled;
    }
    match print(outcome) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => true,
        Err(error) => {
            complain(&format!("cannot write the table to stdout: {}", reason(&error)));
            false
        }
        Ok(()) => true,
    }
}

fn print(outcome: &Outcome) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (index, (pid, table)) in outcome.tables.iter().enumerate() {
        if outcome.tables.len() > 1 {
            let gap = if index == 0 { "" } else { "\n" };
            writeln!(out, "{gap}Process {pid}:")?;
        }
        out.write_all(table)?;
    }
    out.flush()
}

/// Whether the program stands behind a `--`: it is the untouched end of the command line.
fn is_after_dashes(arguments: impl ExactSizeIterator<Item = OsString>, program: usize) -> bool {
    let before = arguments.len().checked_sub(program + 1);
    before.and_then(|index| { arguments }.nth(index)).is_some_and(|argument| argument == "--")
}

impl RunArgs {
    /// Whether this is a module without arguments.
    pub(super) fn is_module(&self, module: &OsStr) -> bool {
        self.module == [module]
    }

    fn target(&self, after_dashes: bool) -> Result<Target, Failure> {
        match (self.program.split_first(), self.module.is_empty()) {
            (Some((program, arguments)), true) if after_dashes => Ok(Target {
                path: checks::command(program)?,
                name: program.clone(),
                arguments: arguments.to_vec(),
            }),
            (Some((script, _)), true) => {
                checks::script(script)?;
                self.python(self.program.clone())
            }
            (_, false) => {
                let flag = OsString::from("-m");
                self.python(std::iter::once(flag).chain(self.module.iter().cloned()).collect())
            }
            (None, true) => Err(Failure::usage(
                "nothing to run; name a script, '-m' and a module, or '--' and a command",
            )),
        }
    }

    fn python(&self, arguments: Vec<OsString>) -> Result<Target, Failure> {
        if let Some(name) = &self.python {
            let path = checks::python(name)?;
            return Ok(Target { path, name: name.clone(), arguments });
        }
        for name in ["python3", "python"] {
            if let Some(path) = checks::on_path(OsStr::new(name)) {
                return Ok(Target { path, name: name.into(), arguments });
            }
        }
        Err(Failure::usage(
            "there is neither a python3 nor a python on PATH; name one with --python",
        ))
    }

    fn config(&self) -> Result<Config, Failure> {
        // What goes to stdout is one profile.
        let is_stdout = is_stdout(self.output.as_ref());
        if is_stdout && self.rotate.is_some() {
            return Err(Failure::usage(
                "'--rotate' writes many profiles, and stdout takes one; name a file with -o",
            ));
        }
        // Processes that the program starts elsewhere are to write to the same place.
        let output = match &self.output {
            Some(_) if is_stdout => None,
            Some(output) => {
                let directory = std::env::current_dir().map_err(|error| {
                    Failure::broken(format!("there is no working directory: {}", reason(&error)))
                })?;
                Some(output.anchored(&directory))
            }
            None => None,
        };
        let config = Config {
            interval: self.sampling_rate,
            max_overhead: self.max_overhead,
            duration: self.duration,
            delay: self.delay,
            rotate: self.rotate,
            control: self.control,
            paused: self.paused,
            blocking: self.blocking,
            native: self.native,
            memory: self.memory,
            async_mode: self.async_mode.or(self.async_aware.then_some(AsyncMode::Running)),
            opcodes: self.opcodes,
            view: self.format.view(&self.threads),
            perf: self.perf,
            formats: self.format.formats(self.output.as_ref()),
            output,
            subprocesses: self.subprocesses || is_stdout,
            style: self.format.style(),
        };
        config.checked().map_err(|error| Failure::usage(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{By, Format, Mode, SortKey, Style, View};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(arguments: &[&str]) -> (RunArgs, bool) {
        let line: Vec<OsString> =
            std::iter::once("run").chain(arguments.iter().copied()).map(OsString::from).collect();
        let args =
            Line::try_parse_from(&line).unwrap_or_else(|error| panic!("{line:?}: {error}")).run;
        let after = is_after_dashes(line.into_iter(), args.program.len());
        (args, after)
    }

    #[test]
    fn the_rest_belongs_to_the_program() {
        for rest in [
            &["x.py", "-o", "y", "--help", "--", "-m", "--unknown"][..],
            &["x.py", "--"],
            &["x.py"],
        ] {
            let (args, after) = parse(&[&["--svg"][..], rest].concat());
            assert_eq!(args.program, rest);
            assert_eq!(args.format.formats(None), [Format::Svg]);
            assert!(args.output.is_none() && !after);
            let (args, after) = parse(&[&["--svg", "--"][..], rest].concat());
            assert_eq!(args.program, rest);
            assert!(after);
        }
    }

    #[test]
    fn the_rest_belongs_to_the_module() {
        for rest in [
            &["-m", "mod", "-o", "y", "--help", "--", "x", "-m", "--unknown"][..],
            &["-m", "mod", "--", "--version"],
            &["-m", "mod", "--svg"],
            &["-m", "mod"],
        ] {
            let (args, _) = parse(&[&["--pstats"][..], rest].concat());
            assert_eq!(args.module, rest[1..]);
            assert!(args.program.is_empty() && args.output.is_none());
            assert_eq!(args.format.formats(None), [Format::Pstats]);
        }
    }

    #[test]
    fn options_become_the_configuration() {
        let config = |arguments: &[&str]| parse(arguments).0.config().ok().unwrap();
        let default = Config { formats: vec![Format::Pstats], ..Config::default() };
        assert_eq!(config(&["x.py"]), default);
        let line = "-a --opcodes --thread w-* --thread 7 --subprocesses --mode gil --no-gc --perf jitdump -r 10k --max-overhead 2% -d 5m --blocking --native --memory=syscall --async-aware --collapsed -o /c_%p \
                    --control USR2 --paused --sort name -l 3 --no-summary \
                    --by function --hide a* --hide b --show c x.py";
        let all = Config {
            interval: Duration::from_micros(100),
            max_overhead: Some(200),
            duration: Some(Duration::from_secs(300)),
            delay: None,
            rotate: None,
            control: Some(parse_signal("USR2").unwrap()),
            paused: true,
            blocking: true,
            native: true,
            memory: Memory::Syscall,
            async_mode: Some(AsyncMode::Running),
            opcodes: true,
            view: View {
                mode: Mode::Gil,
                threads: vec!["w-*".parse().unwrap(), "7".parse().unwrap()],
                hides_gc: true,
            },
            perf: Some(Perf::JitDump),
            formats: vec![Format::Collapsed],
            output: Some(OutputTemplate::new("/c_%p").unwrap()),
            subprocesses: true,
            style: Style {
                sort: SortKey::Name,
                limit: Some(3),
                summary: false,
                width: None,
                by: By::Function,
                is_colored: false,
                hide: vec!["a*".parse().unwrap(), "b".parse().unwrap()],
                show: vec!["c".parse().unwrap()],
                baseline: None,
            },
        };
        assert_eq!(config(&line.split_whitespace().collect::<Vec<_>>()), all);
        assert_eq!(config(&["--delay=2s", "x.py"]).delay, Some(Duration::from_secs(2)));
        let refusal = parse(&["--paused", "x.py"]).0.config().err().unwrap();
        assert!(refusal.sentence.starts_with("'paused' needs a signal"));
        assert_eq!(config(&["--html", "x.py"]).formats, [Format::Html]);
        let two = config(&["--flamegraph", "--svg", "x.py"]).formats;
        assert_eq!(two, [Format::Svg, Format::Html]);
        let relative = config(&["-o", "p", "x.py"]).output.unwrap();
        assert_eq!(relative.fixed().unwrap(), std::env::current_dir().unwrap().join("p"));
    }
}
