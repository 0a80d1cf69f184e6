//! `pysamp diff`: what has become slower or faster between two recordings.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::filters::FilterArgs;
use super::formats::on_stdout;
use super::progress::Progress;
use super::report::{Reading, print};
use super::{Failure, checks, complain, reason};
use crate::config::{Mode, Style, parse_limit, parse_mode};
use crate::export::diff::{self, Comparison, DiffKey};
use crate::export::{html, svg};
use crate::session::replace_file;

const NOTES: &str = "\
Functions are compared by their shares of the time, so that the recordings may be
of different lengths. Shares are estimates: the error of each change is shown, and
changes that sampling alone cannot explain are marked with a '*'. What differs from
run to run for other reasons is not in it; record more than one run of each, and
use 'pysamp report --recording' to add them up.";

/// What the help and its errors call the recording that is compared.
pub(super) const SECOND: &str = "AFTER";

/// Show which functions take more or less of the time than before
#[derive(Args)]
#[command(after_help = NOTES)]
pub(super) struct DiffArgs {
    /// The recording to compare with
    #[arg(value_name = "BEFORE")]
    before: PathBuf,

    /// The recording to be compared
    #[arg(value_name = SECOND)]
    after: PathBuf,

    /// Whose time to compare: wall, cpu, gil or exception
    #[arg(long, value_name = "MODE", default_value = "wall", value_parser = parse_mode)]
    #[arg(hide_default_value = true)]
    mode: Mode,

    /// Compare the times themselves, of runs that do the same work
    #[arg(long)]
    absolute: bool,

    /// A flame graph of the second as an SVG picture; red is slower, blue is faster
    #[arg(long, help_heading = "Output", conflicts_with = "flamegraph")]
    svg: bool,

    /// A flame graph of the second as an HTML page, with what is new and what is gone
    #[arg(long, help_heading = "Output")]
    flamegraph: bool,

    /// File to write, or - for stdout [default: stdout]
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,

    /// Order by the change in the functions themselves, or in them and what they call
    #[arg(long, value_name = "self|total", default_value = "self", help_heading = "Table")]
    #[arg(value_parser = str::parse::<DiffKey>)]
    sort: DiffKey,

    /// How many rows to show at most, slower and faster ones each [default: 15]
    #[arg(short, long, value_name = "ROWS", help_heading = "Table")]
    #[arg(value_parser = parse_limit, allow_negative_numbers = true)]
    limit: Option<usize>,

    #[command(flatten)]
    filter: FilterArgs,
}

/// Reads two recordings and writes what differs.
pub(super) fn diff(args: DiffArgs) -> Result<ExitCode, Failure> {
    args.filter.check()?;
    if args.svg && args.output.is_none() {
        return Err(Failure::usage("'--svg' makes a picture; name a file for it with -o"));
    }
    if args.flamegraph && args.output.is_none() {
        return Err(Failure::usage("'--flamegraph' makes a page; name a file for it with -o"));
    }
    if let Some(output) = &args.output {
        checks::is_not_read(output, &[&args.before, &args.after])?;
    }
    let progress = Progress::begin("reading");
    let mut reading = Reading::new(&progress, &[&args.before, &args.after]);
    let [before, after] = [reading.next(&args.before)?, reading.next(&args.after)?];
    drop(progress);
    let [before, after] = [args.filter.part_of(before)?, args.filter.part_of(after)?];
    let (before, after) = (before.in_mode(args.mode), after.in_mode(args.mode));
    let comparison = Comparison { sort: args.sort, is_absolute: args.absolute };
    let style = Style { limit: args.limit, ..Style::default() };
    let write = |style: &Style, out: &mut dyn Write| match (args.svg, args.flamegraph) {
        (true, _) => svg::write_difference(&before, &after, args.absolute, out),
        (_, true) => html::write_diff(&after, &before, out),
        _ => diff::write(&before, &after, comparison, style, out),
    };
    let output = match &args.output {
        Some(output) if output.as_os_str() != "-" => output.clone(),
        _ => {
            let style = on_stdout(style);
            return print(|out| write(&style, out)).map(|()| ExitCode::SUCCESS);
        }
    };
    replace_file(&output, |out| write(&style, out)).map_err(|error| {
        Failure::broken(format!("cannot write '{}': {}", output.display(), reason(&error)))
    })?;
    complain(&format!("wrote {}", output.display()));
    Ok(ExitCode::SUCCESS)
}
