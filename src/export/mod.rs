//! Formats that a profile is written in, one file each.

mod aggregate;
pub mod callgrind;
pub mod chrome;
pub mod collapsed;
mod escape;
pub mod html;
pub mod jsonl;
pub mod pprof;
pub mod pstats_marshal;
pub mod pstats_table;
pub mod recording;
pub mod speedscope;
pub mod svg;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use escape::{is_hidden, one_line};
pub use pstats_table::{SortKey, TableOptions};

use crate::profile::{Profile, Thread};
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

/// A format that a profile is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Text table for a terminal: `table`.
    PstatsTable,
    /// File for the standard library's `pstats`: `pstats`.
    Pstats,
    /// One line of text for each distinct stack: `collapsed`.
    Collapsed,
    /// Flame graph as an image: `svg`.
    Svg,
    /// Flame graph as a self-contained page: `flamegraph`, or `html`.
    Html,
    /// Everything, for `pysamp report`: `recording`.
    Recording,
    /// Gzipped protocol buffers for `go tool pprof`: `pprof`.
    Pprof,
    /// For the viewer speedscope: `speedscope`.
    Speedscope,
    /// Trace for Perfetto and `chrome://tracing`: `chrome`.
    Chrome,
    /// For KCachegrind and `callgrind_annotate`: `callgrind`.
    Callgrind,
    /// Records for programs, as those of CPython's own sampler: `jsonl`.
    Jsonl,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 11] = [
        Format::PstatsTable,
        Format::Pstats,
        Format::Collapsed,
        Format::Svg,
        Format::Html,
        Format::Recording,
        Format::Pprof,
        Format::Speedscope,
        Format::Chrome,
        Format::Callgrind,
        Format::Jsonl,
    ];

    /// The name that options and messages use.
    pub fn name(self) -> &'static str {
        match self {
            Format::PstatsTable => "table",
            Format::Pstats => "pstats",
            Format::Collapsed => "collapsed",
            Format::Svg => "svg",
            Format::Html => "flamegraph",
            Format::Recording => "recording",
            Format::Pprof => "pprof",
            Format::Speedscope => "speedscope",
            Format::Chrome => "chrome",
            Format::Callgrind => "callgrind",
            Format::Jsonl => "jsonl",
        }
    }

    /// How the names of its files end, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::PstatsTable | Format::Collapsed => "txt",
            Format::Pstats => "pstats",
            Format::Svg => "svg",
            Format::Html => "html",
            Format::Recording => "pysamp",
            Format::Pprof => "pb.gz",
            Format::Speedscope => "speedscope.json",
            Format::Chrome => "trace.json",
            Format::Callgrind => "callgrind",
            Format::Jsonl => "jsonl",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let wanted = if name == "html" { Format::Html.name() } else { name };
        by_name("format", Format::ALL, Format::name, wanted)
    }
}

/// A name that stands for no choice of an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {option} '{}'; it is one of {}", .given.escape_debug(), .valid.join(", "))]
pub struct UnknownName {
    option: &'static str,
    given: String,
    valid: Vec<&'static str>,
}

/// The choice with a name.
pub(crate) fn by_name<T: Copy, const N: usize>(
    option: &'static str,
    all: [T; N],
    name: fn(T) -> &'static str,
    given: &str,
) -> Result<T, UnknownName> {
    let given = given.trim();
    all.into_iter().find(|&choice| name(choice) == given).ok_or_else(|| UnknownName {
        option,
        given: given.to_owned(),
        valid: all.map(name).to_vec(),
    })
}

/// Writes a profile in a format; `table` matters to [`Format::PstatsTable`] only.
pub fn write(
    format: Format,
    profile: &Profile,
    table: &TableOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::PstatsTable => pstats_table::write(profile, table, out),
        Format::Pstats => pstats_marshal::write(profile, out),
        Format::Collapsed => collapsed::write(profile, out),
        Format::Svg => svg::write(profile, out),
        Format::Html => html::write(profile, out),
        Format::Recording => recording::write(profile, out),
        Format::Pprof => pprof::write(profile, out),
        Format::Speedscope => speedscope::write(profile, out),
        Format::Chrome => chrome::write(profile, out),
        Format::Callgrind => callgrind::write(profile, out),
        Format::Jsonl => jsonl::write(profile, out),
    }
}

/// What a thread is called where one text has to tell it from all others.
fn thread_title(profile: &Profile, thread: &Thread) -> String {
    let name = if thread.name.is_empty() { "Thread" } else { &thread.name };
    let title = format!("{} ({})", one_line(name), thread.tid);
    match &profile.processes[..] {
        [_] => title,
        _ => {
            let process = profile.process(thread);
            format!("{} {}: {title}", one_line(&process.program), process.pid)
        }
    }
}

/// A text as it is shown, in JSON.
fn json_text(text: &str) -> String {
    serde_json::Value::from(one_line(text)).to_string()
}

/// The last part of a path.
fn base_name(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("html".parse(), Ok(Format::Html));
        let error = "xml".parse::<Format>().unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no format 'xml'; it is one of table, pstats, collapsed, svg, flamegraph, recording, \
             pprof, speedscope, chrome, callgrind, jsonl"
        );
    }

    #[test]
    fn every_format_writes_an_empty_profile() {
        for format in Format::ALL {
            let mut out = Vec::new();
            write(format, &testing::empty(), &TableOptions::default(), &mut out).unwrap();
            assert_eq!(out.is_empty(), format == Format::Collapsed, "{format}");
        }
    }

    #[test]
    fn every_format_passes_on_write_errors() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let profile = testing::profile(&[("main:1", 1)]);
        for format in Format::ALL {
            let error = write(format, &profile, &TableOptions::default(), &mut Full).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{format}");
        }
    }
}
