//! The options for what is written, which `run` and `report` have in common.

use clap::Args;

use crate::config::{Format, Mode, SortKey, TableOptions, parse_limit, parse_mode};

#[derive(Args)]
pub(super) struct FormatArgs {
    /// Whose time to show: wall, all that passes; cpu, what was used; gil, while the GIL was held
    #[arg(long, value_name = "MODE", default_value = "wall", value_parser = parse_mode)]
    #[arg(hide_default_value = true)]
    pub mode: Mode,

    /// A table on stdout; with -o, a file for Python's pstats module [default]
    #[arg(long, group = "format", help_heading = "Output")]
    pstats: bool,

    /// Collapsed stacks, one per line, for other flame graph tools
    #[arg(long, group = "format", help_heading = "Output")]
    collapsed: bool,

    /// A flame graph as an HTML page that needs no network
    #[arg(long, group = "format", help_heading = "Output")]
    flamegraph: bool,

    /// A flame graph as an SVG picture
    #[arg(long, group = "format", help_heading = "Output")]
    svg: bool,

    /// A recording of everything, for pysamp report
    #[arg(long, group = "format", help_heading = "Output")]
    recording: bool,

    /// A profile for go tool pprof and the services that read its files
    #[arg(long, group = "format", help_heading = "Output")]
    pprof: bool,

    /// A profile for the viewer speedscope, each thread in order of time
    #[arg(long, group = "format", help_heading = "Output")]
    speedscope: bool,

    /// A trace for Perfetto and chrome://tracing: when each function was seen
    #[arg(long, group = "format", help_heading = "Output")]
    chrome: bool,

    /// A profile for KCachegrind and callgrind_annotate
    #[arg(long, group = "format", help_heading = "Output")]
    callgrind: bool,

    /// Records in JSON, one per line, for scripts
    #[arg(long, group = "format", help_heading = "Output")]
    jsonl: bool,

    /// What to order it by: nsamples, tottime, cumtime, sample-pct, cumul-pct, nsamples-cumul or name
    #[arg(long, value_name = "KEY", default_value = "nsamples", help_heading = "Table")]
    #[arg(value_parser = str::parse::<SortKey>)]
    sort: SortKey,

    /// How many rows to show at most
    #[arg(short, long, value_name = "ROWS", default_value = "15", help_heading = "Table")]
    #[arg(value_parser = parse_limit, allow_negative_numbers = true)]
    limit: usize,

    /// Leave the summary out
    #[arg(long, help_heading = "Table")]
    no_summary: bool,
}

impl FormatArgs {
    pub(super) fn format(&self) -> Format {
        let asked = [
            (self.collapsed, Format::Collapsed),
            (self.flamegraph, Format::Html),
            (self.svg, Format::Svg),
            (self.recording, Format::Recording),
            (self.pprof, Format::Pprof),
            (self.speedscope, Format::Speedscope),
            (self.chrome, Format::Chrome),
            (self.callgrind, Format::Callgrind),
            (self.jsonl, Format::Jsonl),
        ];
        asked.into_iter().find_map(|(is, format)| is.then_some(format)).unwrap_or(Format::Pstats)
    }

    pub(super) fn table(&self) -> TableOptions {
        TableOptions { sort: self.sort, limit: self.limit, summary: !self.no_summary, width: None }
    }
}
