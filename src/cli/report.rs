//! `pysamp report`: recordings of processes that left no profile, in any format.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::filters::FilterArgs;
use super::formats::{FormatArgs, on_stdout, take_shown};
use super::progress::Progress;
use super::{Failure, browser, checks, complain, reason};
use crate::config::{Config, Format, OutputTemplate};
use crate::export;
use crate::profile::Profile;
use crate::profile::recording::{self, Unreadable};
use crate::session::Output;

const NOTES: &str = "\
A profiled process keeps a recording, FILE.pysamp, beside its output and removes
it once it has written its profile. One that was killed leaves it behind.";

/// Make any format of recordings, or of a part of them; those of killed processes, too
#[derive(Args)]
#[command(after_help = NOTES)]
pub(super) struct ReportArgs {
    /// Recordings; several are added up
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// File to write, or - for stdout; in its name %p is the process id, %t the start time, %n the
    /// program, %% a percent sign
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    #[arg(value_parser = OsStringValueParser::new().try_map(OutputTemplate::new))]
    output: Option<OutputTemplate>,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    filter: FilterArgs,
}

/// Reads recordings and writes them as one profile.
pub(super) fn report(args: ReportArgs) -> Result<ExitCode, Failure> {
    let is_stdout = args.output.as_ref().is_some_and(|output| output.as_os_str() == "-");
    let mut config = Config {
        view: args.format.view(&[]),
        formats: args.format.formats(),
        output: args.output.filter(|_| !is_stdout),
        style: args.format.style(),
        ..Config::default()
    };
    checks::outputs(&config)?;
    checks::baseline(&config.style)?;
    args.filter.check()?;
    let shown = if is_stdout { take_only(&mut config)? } else { take_shown(&mut config) };
    if args.format.browser {
        browser::check(&config.formats)?;
    }
    let progress = Progress::begin("reading");
    let mut profiles = Vec::with_capacity(args.files.len());
    for (index, file) in args.files.iter().enumerate() {
        let number = index + 1;
        progress.step(&format!("reading {number} of {}: {}", args.files.len(), file.display()));
        profiles.push(read(file)?);
    }
    progress.step("adding up");
    let profile = args.filter.part_of(Profile::merge(profiles))?;
    if !shown.is_empty() {
        drop(progress);
        show(&profile, &shown, &config)?;
        if config.formats.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
    } else {
        progress.step("writing");
    }
    let here = std::env::current_dir().unwrap_or_default();
    let mut output = Output::of_command(&config, here);
    let Ok(written) = output.deliver(&profile, None) else { return Ok(ExitCode::FAILURE) };
    if args.format.browser {
        browser::open(&config.formats, &written)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes out the one format whose file is `-`.
fn take_only(config: &mut Config) -> Result<Vec<Format>, Failure> {
    match std::mem::take(&mut config.formats)[..] {
        [format] if format.is_directory() => Err(Failure::usage(format!(
            "'{format}' is a directory and cannot go to stdout; name one with -o"
        ))),
        // A file for Python's pstats module is of no use on a terminal.
        [format] => Ok(vec![format.on_terminal().unwrap_or(format)]),
        _ => Err(Failure::usage("only one format can go to stdout; name a file with -o")),
    }
}

/// Writes what is shown.
fn show(profile: &Profile, formats: &[Format], config: &Config) -> Result<(), Failure> {
    let style = on_stdout(config.style.clone());
    let profile = profile.viewed(&config.view);
    print(|out| export::write_all(formats, &profile, &style, out))
}

/// Writes to stdout.
pub(super) fn print(write: impl Fn(&mut dyn Write) -> std::io::Result<()>) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::broken(format!("cannot write to stdout: {}", reason(&error))))
        }
        _ => Ok(()),
    }
}

/// Reads a recording, and tells of damage to it.
pub(super) fn read(path: impl AsRef<Path>) -> Result<Profile, Failure> {
    let path = path.as_ref();
    let (profile, damage) =
        recording::read_file(path).map_err(|error| Failure::broken(unreadable(path, &error)))?;
    if let Some(damage) = damage {
        complain(&format!("'{}': {damage}", path.display()));
    }
    Ok(profile)
}

/// Why there is no profile in a file, as a sentence.
pub(super) fn unreadable(path: &Path, error: &Unreadable) -> String {
    let why = match error {
        Unreadable::File(error) => reason(error),
        other => other.to_string(),
    };
    format!("cannot read the recording '{}': {why}", path.display())
}
