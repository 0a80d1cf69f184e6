//! The command line: parsing, and every error as one sentence.

mod browser;
mod checks;
pub mod child;
mod diff;
mod filters;
mod formats;
mod progress;
mod realtime;
mod report;
mod run;
mod run_dir;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::export;

const EXAMPLES: &str = "\
Examples:
  pysamp run app.py --its-own options             a table when the program ends
  pysamp run --flamegraph -o app.html -m package  a flame graph of a module
  pysamp run -- sh -c 'python3 a.py | cat'        any command and its Pythons
  pysamp report pysamp_4711.pysamp                what a killed process had recorded
  pysamp diff before.pysamp after.pysamp          what has become slower, and faster

See 'pysamp run --help' for the options and the environment.";

/// A sampling profiler that lives inside the Python process it profiles
#[derive(Parser)]
#[command(name = "pysamp", version, disable_help_subcommand = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Report(Box<report::ReportArgs>),
    Diff(Box<diff::DiffArgs>),
}

/// Why nothing was run, or not to its end: a sentence, and the code to exit with.
struct Failure {
    sentence: String,
    code: u8,
}

impl Failure {
    /// The user asked for something that cannot be.
    fn usage(sentence: impl Display) -> Self {
        Self { sentence: sentence.to_string(), code: 2 }
    }

    /// Something that should work does not work here.
    fn broken(sentence: impl Display) -> Self {
        Self { sentence: sentence.to_string(), code: 1 }
    }
}

/// Runs the command that this process was started as.
pub fn main() -> ExitCode {
    let result = match Cli::try_parse_from(detach_module(std::env::args_os().collect())) {
        Ok(Cli { command: Command::Run(args) }) => run::run(*args),
        Ok(Cli { command: Command::Report(args) }) => report::report(*args),
        Ok(Cli { command: Command::Diff(args) }) => diff::diff(*args),
        Err(error) => explain(&error),
    };
    result.unwrap_or_else(|failure| {
        complain(&failure.sentence);
        ExitCode::from(failure.code)
    })
}

/// Makes `-m module` of Python's `-mmodule`, after which clap would go on looking for options.
fn detach_module(mut line: Vec<OsString>) -> Vec<OsString> {
    let attached = line.iter().enumerate().find_map(|(at, argument)| {
        let module = argument.as_bytes().strip_prefix(b"-m").filter(|module| !module.is_empty())?;
        let Command::Run(args) = Cli::try_parse_from(&line[..=at]).ok()?.command else {
            return None;
        };
        let module = OsStr::from_bytes(module).to_owned();
        args.is_module(&module).then_some((at, module))
    });
    if let Some((at, module)) = attached {
        line.splice(at..=at, ["-m".into(), module]);
    }
    line
}

/// One line on stderr, whatever names are in it; not `eprintln`, which panics where stderr is closed.
fn complain(sentence: &str) {
    use std::io::Write;
    let _ =
        std::io::stderr().write_all(format!("pysamp: {}\n", export::one_line(sentence)).as_bytes());
}

/// An I/O error's text without the number that Rust adds.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Shows the help that was asked for, or makes one sentence of what clap found wrong.
fn explain(error: &clap::Error) -> Result<ExitCode, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            return Ok(ExitCode::SUCCESS);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return Ok(ExitCode::from(2));
        }
        _ => {}
    }
    let context = |kind| error.get(kind).map(context_text).filter(|text| !text.is_empty());
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    // Clap names an option as in `--duration <TIME>`.
    let option = argument.split([' ', '=']).next().unwrap_or_default();
    let hint =
        |kind| context(kind).map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
    Err(Failure::usage(match error.kind() {
        ErrorKind::UnknownArgument if !argument.starts_with('-') => {
            format!("'{argument}' is one argument too many")
        }
        ErrorKind::UnknownArgument => {
            format!("there is no option '{argument}'{}", hint(ContextKind::SuggestedArg))
        }
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            let suggestion = if context(ContextKind::SuggestedSubcommand).is_some() {
                hint(ContextKind::SuggestedSubcommand)
            } else {
                format!("; to profile a program, write 'pysamp run {name}'")
            };
            format!("there is no command '{name}'{suggestion}")
        }
        ErrorKind::MissingRequiredArgument if argument.contains(diff::SECOND) => {
            "two recordings are compared; name the one before and the one after".to_owned()
        }
        ErrorKind::MissingRequiredArgument => {
            "no recording is given; see 'pysamp report --help'".to_owned()
        }
        ErrorKind::MissingSubcommand => "no command is given; see 'pysamp --help'".to_owned(),
        ErrorKind::ValueValidation => match std::error::Error::source(error) {
            Some(reason) => format!("{option}: {reason}"),
            None => first_line(error),
        },
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_none() => {
            format!("the option '{option}' needs a value")
        }
        ErrorKind::ArgumentConflict => match context(ContextKind::PriorArg) {
            Some(prior) if prior == argument => format!("the option '{option}' is given twice"),
            Some(prior) => {
                let prior = prior.split(' ').next().unwrap_or_default();
                format!("'{prior}' and '{option}' exclude each other; choose one")
            }
            None => first_line(error),
        },
        ErrorKind::TooManyValues => format!("the option '{option}' takes no value"),
        _ => first_line(error),
    }))
}

fn context_text(value: &ContextValue) -> String {
    match value {
        ContextValue::Strings(all) => all.join("' or '"),
        other => other.to_string(),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn sentence(arguments: &[&str]) -> String {
        let Err(error) = Cli::try_parse_from(arguments) else { panic!("{arguments:?} parses") };
        let Err(failure) = explain(&error) else { panic!("{arguments:?} is help") };
        assert_eq!(failure.code, 2);
        failure.sentence
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_options_are_one_sentence() {
        for (arguments, expected) in [
            (&["--pstat"][..], "there is no option '--pstat'; did you mean '--pstats'?"),
            (&["--zzz"], "there is no option '--zzz'"),
            (&["-Z"], "there is no option '-Z'"),
            (&["-r"], "the option '--sampling-rate' needs a value"),
            (&["--rate"], "the option '--sampling-rate' needs a value"),
            (&["-m"], "the option '-m' needs a value"),
            (
                &["-r", "0", "x.py"],
                "--sampling-rate: a sampling rate of '0' is too low; the lowest is 0.01hz",
            ),
            (
                &["-r", "-5", "x.py"],
                "--sampling-rate: '-5' is not a sampling rate; write samples a second, such as \
                 1000, 500hz or 10khz",
            ),
            (
                &["--mode=idle", "x.py"],
                "--mode: there is no mode 'idle'; it is one of wall, cpu, gil, exception",
            ),
            (&["-o", "", "x.py"], "--output: the output path is empty; name a file"),
            (&["--svg", "--svg", "x.py"], "the option '--svg' is given twice"),
            (&["--svg=1", "x.py"], "the option '--svg' takes no value"),
        ] {
            let arguments = [&["pysamp", "run"][..], arguments].concat();
            assert_eq!(sentence(&arguments), expected);
        }
    }

    #[test]
    fn an_attached_module_name_ends_the_options() {
        let detached = |line: &[&str]| {
            let line = line.iter().map(OsString::from).collect::<Vec<_>>();
            let detached = detach_module(line.clone());
            (detached != line).then(|| detached.join(OsStr::new(" ")).into_string().unwrap())
        };
        assert_eq!(
            detached(&["pysamp", "run", "-o", "x", "-mmod", "-mother", "--svg"]).unwrap(),
            "pysamp run -o x -m mod -mother --svg"
        );
        for untouched in [["-m", "-mmod"], ["x.py", "-mmod"], ["--", "-mmod"], ["-o", "-mmod"]] {
            assert_eq!(detached(&[&["pysamp", "run"][..], &untouched].concat()), None);
        }
    }

    #[test]
    fn wrong_commands_are_one_sentence() {
        assert_eq!(
            sentence(&["pysamp", "app.py"]),
            "there is no command 'app.py'; to profile a program, write 'pysamp run app.py'"
        );
        assert_eq!(
            sentence(&["pysamp", "runn"]),
            "there is no command 'runn'; did you mean 'run'?"
        );
    }
}
