//! `pysamp report`: recordings of processes that left no profile, in any format.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::filters::FilterArgs;
use super::formats::{FormatArgs, is_stdout, on_stdout, take_shown};
use super::progress::Progress;
use super::{Failure, browser, checks, complain, reason};
use crate::config::{Config, Format, OutputTemplate, View};
use crate::export;
use crate::profile::recording::{self, Unreadable};
use crate::profile::{Meta, Profile};
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
    let is_stdout = is_stdout(args.output.as_ref());
    let mut config = Config {
        view: args.format.view(&[]),
        formats: args.format.formats(args.output.as_ref()),
        output: args.output.filter(|_| !is_stdout),
        style: args.format.style(),
        ..Config::default()
    };
    checks::differ(&args.files)?;
    checks::outputs(&config)?;
    checks::baseline(&config.style)?;
    args.filter.check()?;
    let shown = if is_stdout {
        let only = args.format.only(&config)?;
        config.formats.clear();
        vec![only]
    } else {
        take_shown(&mut config)
    };
    if args.format.browser {
        browser::check(&config.formats)?;
    }
    let progress = Progress::begin("reading");
    let mut unread = None;
    let mut reading = Reading::new(&progress, &args.files);
    let profiles = args
        .files
        .iter()
        .map_while(|file| reading.next(file).map_err(|failure| unread = Some(failure)).ok());
    // Each is added before the next one is read.
    let merged = Profile::merge(profiles);
    if let Some(failure) = unread {
        return Err(failure);
    }
    progress.step("choosing what is asked for");
    let profile = args.filter.part_of(merged)?;
    let read: Vec<&PathBuf> = args.files.iter().chain(&config.style.baseline).collect();
    // What has a number, or no name of the user's, replaces nothing.
    let is_replacing =
        |template: &OutputTemplate| config.output.is_some() && !template.has_number();
    for (_, template) in config.outputs().iter().filter(|(_, template)| is_replacing(template)) {
        let Meta { pid, start_unix_ns, program, .. } = &profile.meta;
        checks::is_not_read(&template.expand(*pid, *start_unix_ns, program, None), &read)?;
    }
    progress.step(&writing(shown.iter().chain(&config.formats)));
    if !shown.is_empty() {
        // On one terminal the two would be mixed up.
        let progress = Some(progress).filter(|_| !std::io::stdout().is_terminal());
        show(&profile, &shown, &config)?;
        drop(progress);
        if config.formats.is_empty() {
            return whole(&profile);
        }
    }
    let here = std::env::current_dir().unwrap_or_default();
    let mut output = Output::of_command(&config, here);
    output.stderr.is_in_use = shown.is_empty() && std::io::stderr().is_terminal();
    let Ok(written) = output.deliver(&profile, None) else { return Ok(ExitCode::FAILURE) };
    if args.format.browser {
        browser::open(&config.formats, &written)?;
    }
    whole(&profile)
}

/// What is being done while formats are written.
fn writing<'a>(formats: impl Iterator<Item = &'a Format>) -> String {
    let names: Vec<&str> = formats.map(|format| format.name()).collect();
    format!("writing {}", names.join(", "))
}

/// Whether all that was to be written could be read to the end.
fn whole(profile: &Profile) -> Result<ExitCode, Failure> {
    match profile.timeline.is_cut() {
        false => Ok(ExitCode::SUCCESS),
        true => Err(Failure::broken(
            "a recording was cut while it was read; what was written has a part of its time only",
        )),
    }
}

/// Writes what goes to stdout.
pub(super) fn show(profile: &Profile, formats: &[Format], config: &Config) -> Result<(), Failure> {
    let style = on_stdout(config.style.clone());
    // A recording has everything, whatever is to be shown.
    let whole = View::default();
    let is_whole = formats.iter().all(|format| format.is_whole());
    let profile = profile.viewed(if is_whole { &whole } else { &config.view });
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

/// Reads recordings one after the other, and tells how far it is.
pub(super) struct Reading<'a> {
    progress: &'a Progress,
    files: usize,
    /// How many files were begun, and the bytes of those that were read.
    number: usize,
    done: u64,
    /// The bytes of all files; 0 if that is not known.
    all: u64,
}

impl<'a> Reading<'a> {
    pub(super) fn new(progress: &'a Progress, files: &[impl AsRef<Path>]) -> Self {
        let all = files.iter().map(|file| length(file.as_ref())).sum::<Option<u64>>().unwrap_or(0);
        Self { progress, files: files.len(), number: 0, done: 0, all }
    }

    /// Reads a recording, and tells of damage to it.
    pub(super) fn next(&mut self, path: &Path) -> Result<Profile, Failure> {
        self.number += 1;
        let what = format!("reading {} of {}: {}", self.number, self.files, path.display());
        let done = self.progress.part(&what, self.done, self.all);
        self.done += length(path).unwrap_or(0);
        let (profile, damage) = recording::read_file_counting(path, done)
            .map_err(|error| Failure::broken(unreadable(path, &error)))?;
        if let Some(damage) = damage {
            self.progress.clear();
            complain(&format!("'{}': {damage}", path.display()));
        }
        Ok(profile)
    }
}

/// The bytes of a file; `None` if it is something else.
fn length(path: &Path) -> Option<u64> {
    let found = std::fs::metadata(path).ok()?;
    found.is_file().then_some(found.len())
}

/// Why there is no profile in a file, as a sentence.
pub(super) fn unreadable(path: &Path, error: &Unreadable) -> String {
    let why = match error {
        Unreadable::File(error) => reason(error),
        other => other.to_string(),
    };
    format!("cannot read the recording '{}': {why}", path.display())
}
