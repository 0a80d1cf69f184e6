//! The options for what is written, which `run` and `report` have in common.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::Failure;
use crate::config::{
    By, Config, Format, Mode, OutputTemplate, SortKey, Style, View, parse_limit, parse_mode,
};
use crate::os::terminal;
use crate::profile::Pattern;

#[derive(Args)]
pub(super) struct FormatArgs {
    /// Whose time to show: wall, all that passes; cpu, what was used; gil, while the GIL was held;
    /// exception, while one was raised or handled
    #[arg(long, value_name = "MODE", default_value = "wall", value_parser = parse_mode)]
    #[arg(hide_default_value = true)]
    mode: Mode,

    /// Show garbage collections as part of the functions that they interrupt
    #[arg(long)]
    no_gc: bool,

    #[command(flatten)]
    chosen: Chosen,

    /// A flame graph as an HTML page that is compared with this recording
    #[arg(long, value_name = "BASELINE", help_heading = "Output")]
    diff_flamegraph: Option<PathBuf>,

    /// Open the page that is written; without a format, a flame graph
    #[arg(long, help_heading = "Output")]
    pub browser: bool,

    /// What to order the table by: nsamples, tottime, cumtime, sample-pct, cumul-pct, nsamples-cumul or name
    #[arg(long, value_name = "KEY", default_value = "nsamples", help_heading = "Table and tree")]
    #[arg(value_parser = str::parse::<SortKey>)]
    sort: SortKey,

    /// How many rows to show at most [default: 15 of a table, 40 of a tree]
    #[arg(short, long, value_name = "ROWS", help_heading = "Table and tree")]
    #[arg(value_parser = parse_limit, allow_negative_numbers = true)]
    limit: Option<usize>,

    /// Whether a row is a line of code or a function
    #[arg(long, value_name = "line|function", default_value = "line")]
    #[arg(value_parser = str::parse::<By>, help_heading = "Table and tree")]
    by: By,

    /// Leave the summary out
    #[arg(long, help_heading = "Table and tree")]
    no_summary: bool,

    /// Fold this in the tree, too, by the name of a function or the path of a file, with * for
    /// anything; libraries are folded anyway
    #[arg(long, value_name = "PATTERN", value_parser = str::parse::<Pattern>)]
    #[arg(help_heading = "Table and tree")]
    hide: Vec<Pattern>,

    /// Do not fold this in the tree; '*' is everything
    #[arg(long, value_name = "PATTERN", value_parser = str::parse::<Pattern>)]
    #[arg(help_heading = "Table and tree")]
    show: Vec<Pattern>,
}

impl FormatArgs {
    pub(super) fn view(&self, threads: &[Pattern]) -> View {
        View { mode: self.mode, threads: threads.to_vec(), hides_gc: self.no_gc }
    }

    /// What was chosen, else what the output's name tells, else the table.
    pub(super) fn formats(&self, output: Option<&OutputTemplate>) -> Vec<Format> {
        let mut chosen = self.chosen.0.clone();
        if self.diff_flamegraph.is_some() && !chosen.contains(&Format::Html) {
            chosen.push(Format::Html);
        }
        if chosen.is_empty() {
            let default = if self.browser { Format::Html } else { Format::Pstats };
            chosen.push(output.and_then(OutputTemplate::format).unwrap_or(default));
        }
        chosen
    }

    /// The one format that goes to stdout.
    pub(super) fn only(&self, config: &Config) -> Result<Format, Failure> {
        match config.formats[..] {
            _ if self.browser => {
                Err(Failure::usage("'--browser' opens a file, not stdout; name one with -o"))
            }
            // A file for Python's pstats module is of no use on a terminal.
            [format] => Ok(format.on_terminal().unwrap_or(format)),
            _ => Err(Failure::usage("only one format can go to stdout; name a file with -o")),
        }
    }

    pub(super) fn style(&self) -> Style {
        Style {
            sort: self.sort,
            limit: self.limit,
            summary: !self.no_summary,
            width: None,
            by: self.by,
            is_colored: false,
            hide: self.hide.clone(),
            show: self.show.clone(),
            baseline: self.diff_flamegraph.as_deref().map(anchored),
        }
    }
}

/// Whether an output is stdout.
pub(super) fn is_stdout(output: Option<&OutputTemplate>) -> bool {
    output.is_some_and(|output| output.as_os_str() == "-")
}

/// The style for stdout: within its width and in colours, if it is a terminal.
pub(super) fn on_stdout(style: Style) -> Style {
    let stdout = std::io::stdout();
    Style { width: terminal::columns(&stdout), is_colored: terminal::is_colored(&stdout), ..style }
}

/// A path that means the same to processes in other directories.
fn anchored(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Takes out of a configuration what goes to stdout instead of a file, and says what to show for it.
pub(super) fn take_shown(config: &mut Config) -> Vec<Format> {
    let mut shown = Vec::new();
    config.formats.retain(|format| {
        let seen = format.on_terminal().filter(|_| config.output.is_none());
        shown.extend(seen);
        seen.is_none()
    });
    shown.dedup();
    shown
}

/// A flag for each format there is.
struct Chosen(Vec<Format>);

impl FromArgMatches for Chosen {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_chosen = |format: &Format| matches.get_flag(format.name());
        Ok(Self(Format::ALL.into_iter().filter(is_chosen).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Chosen {
    fn augment_args(command: Command) -> Command {
        command.args(Format::ALL.map(|format| {
            Arg::new(format.name())
                .long(format.name())
                .aliases(format.names().skip(1))
                .help(format.summary())
                .help_heading("Output")
                .action(ArgAction::SetTrue)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
