//! The formats there are: one entry for each, from which options, names of files and messages follow.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use super::{Style, UnknownName, by_name};
use super::{
    binary, callgrind, chrome, collapsed, gecko, heatmap, html, jsonl, pprof, pstats_marshal,
    pstats_table, recording, speedscope, svg, tree,
};
use crate::profile::Profile;
use crate::profile::recording::read_file;

/// How a format is written.
#[derive(Clone, Copy)]
pub enum Writer {
    /// Into a file, or to stdout.
    File(fn(&Profile, &Style, &mut dyn Write) -> io::Result<()>),
    /// Into an empty directory; or into a file, where its name is that of a page, or to stdout.
    Either {
        /// Fills the directory.
        fill: fn(&Profile, &Style, &Path) -> io::Result<()>,
        /// Writes the file.
        write: fn(&Profile, &Style, &mut dyn Write) -> io::Result<()>,
    },
}

/// What there is to know of a format.
struct Entry {
    /// What options and messages call it.
    name: &'static str,
    /// What else options may call it.
    other_name: Option<&'static str>,
    /// How the names of its files end, without the dot.
    extension: &'static str,
    /// What is shown of it on a terminal, if anything is.
    on_terminal: Option<Format>,
    /// One line for `--help`.
    summary: &'static str,
    writer: Writer,
}

macro_rules! formats {
    ($($format:ident $entry:tt)*) => {
        /// A format that a profile is written in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)]
        pub enum Format { $($format),* }

        impl Format {
            /// Every format.
            pub const ALL: [Format; [$(Format::$format),*].len()] = [$(Format::$format),*];

            fn entry(self) -> &'static Entry {
                match self { $(Format::$format => &const { Entry $entry }),* }
            }
        }
    };
}

formats! {
    PstatsTable {
        name: "table",
        other_name: None,
        extension: "txt",
        on_terminal: Some(Format::PstatsTable),
        summary: "A table on stdout, or as text in a file",
        writer: Writer::File(pstats_table::write),
    }
    Pstats {
        name: "pstats",
        other_name: None,
        extension: "pstats",
        on_terminal: Some(Format::PstatsTable),
        summary: "A table on stdout; with -o, a file for Python's pstats module [default]",
        writer: Writer::File(|profile, _, out| pstats_marshal::write(profile, out)),
    }
    Tree {
        name: "tree",
        other_name: None,
        extension: "txt",
        on_terminal: Some(Format::Tree),
        summary: "The paths that took longest as a tree on stdout, or as text in a file",
        writer: Writer::File(tree::write),
    }
    Collapsed {
        name: "collapsed",
        other_name: None,
        extension: "txt",
        on_terminal: None,
        summary: "Collapsed stacks, one per line, for other flame graph tools",
        writer: Writer::File(|profile, _, out| collapsed::write(profile, out)),
    }
    Svg {
        name: "svg",
        other_name: None,
        extension: "svg",
        on_terminal: None,
        summary: "A flame graph as an SVG picture",
        writer: Writer::File(|profile, _, out| svg::write(profile, out)),
    }
    Html {
        name: "flamegraph",
        other_name: Some("html"),
        extension: "html",
        on_terminal: None,
        summary: "A flame graph as an HTML page that needs no network",
        writer: Writer::File(flame_graph),
    }
    Pprof {
        name: "pprof",
        other_name: None,
        extension: "pb.gz",
        on_terminal: None,
        summary: "A profile for go tool pprof and the services that read its files",
        writer: Writer::File(|profile, _, out| pprof::write(profile, out)),
    }
    Speedscope {
        name: "speedscope",
        other_name: None,
        extension: "speedscope.json",
        on_terminal: None,
        summary: "A profile for the viewer speedscope, each thread in order of time",
        writer: Writer::File(|profile, _, out| speedscope::write(profile, out)),
    }
    Chrome {
        name: "chrome",
        other_name: None,
        extension: "trace.json",
        on_terminal: None,
        summary: "A trace for Perfetto and chrome://tracing: when each function was seen",
        writer: Writer::File(|profile, _, out| chrome::write(profile, out)),
    }
    Callgrind {
        name: "callgrind",
        other_name: None,
        extension: "callgrind",
        on_terminal: None,
        summary: "A profile for KCachegrind and callgrind_annotate",
        writer: Writer::File(|profile, _, out| callgrind::write(profile, out)),
    }
    Jsonl {
        name: "jsonl",
        other_name: None,
        extension: "jsonl",
        on_terminal: None,
        summary: "Records in JSON, one per line, for scripts",
        writer: Writer::File(|profile, _, out| jsonl::write(profile, out)),
    }
    Heatmap {
        name: "heatmap",
        other_name: None,
        extension: "heatmap",
        on_terminal: None,
        summary: "HTML pages with the source code, coloured by its heat: a directory of them, or one \
                  file, if its name ends in .html",
        writer: Writer::Either {
            fill: |profile, _, directory| heatmap::write(profile, directory),
            write: |profile, _, out| heatmap::write_file(profile, out),
        },
    }
    Gecko {
        name: "gecko",
        other_name: None,
        extension: "json",
        on_terminal: None,
        summary: "Time lines for the Firefox Profiler, profiler.firefox.com",
        writer: Writer::File(|profile, _, out| gecko::write(profile, out)),
    }
    Binary {
        name: "binary",
        other_name: None,
        extension: "bin",
        on_terminal: None,
        summary: "A file for python3.15 -m profiling.sampling replay",
        writer: Writer::File(|profile, _, out| binary::write(profile, out)),
    }
    Recording {
        name: "recording",
        other_name: None,
        extension: "pysamp",
        on_terminal: None,
        summary: "A recording of everything, for pysamp report",
        writer: Writer::File(|profile, _, out| recording::write(profile, out)),
    }
}

/// The page, or where there is a recording to compare with, what has changed since.
fn flame_graph(profile: &Profile, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Some(path) = &style.baseline else { return html::write(profile, out) };
    let (baseline, _) = read_file(path).map_err(|error| {
        let what = format!("the baseline '{}' cannot be read: {error}", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, what)
    })?;
    html::write_diff(profile, &baseline.in_mode(profile.meta.mode), out)
}

impl Format {
    /// The name that options and messages use.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// Every name that options take.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.entry().name).chain(self.entry().other_name)
    }

    /// How the names of its files end, without the dot.
    pub fn extension(self) -> &'static str {
        self.entry().extension
    }

    /// The first whose files have such a name, packed or not; `None` if it tells nothing.
    pub fn of_name(name: &OsStr) -> Option<Self> {
        let name = name.as_encoded_bytes().to_ascii_lowercase();
        let endings = Self::ALL.into_iter().map(|format| (format, format.extension()));
        let usual = [(Self::Collapsed, "folded"), (Self::Html, "htm"), (Self::Pprof, "pprof")];
        let ends_so = |(_, ending): &(Self, &str)| stem(&name, ending).is_some();
        // The longest tells most: `.trace.json` is no `.json`.
        let fitting = endings.chain(usual).filter(ends_so);
        fitting.rev().max_by_key(|(_, ending)| ending.len()).map(|(format, _)| format)
    }

    /// Whether a file of this name is to be packed by gzip: by its ending, if that is not the format's own.
    pub fn is_gzipped(self, name: &Path) -> bool {
        let gz = |ending: &OsStr| ending.eq_ignore_ascii_case("gz");
        name.extension().is_some_and(gz) && !self.extension().ends_with(".gz")
    }

    /// How the names of its files end, without the dot, such that no other of the formats' do.
    pub fn ending_among(self, all: &[Format]) -> String {
        let extension = self.extension();
        let is_shared = |other: &Format| *other != self && other.extension() == extension;
        match all.iter().any(is_shared) {
            true => format!("{}.{extension}", self.name()),
            false => extension.to_owned(),
        }
    }

    /// As [`Format::ending_among`], for files that are named after `chosen`.
    pub fn ending_after(self, chosen: &Path, all: &[Format]) -> String {
        match self.writer() {
            // One page, as was asked for; its name says which.
            Writer::Either { .. } if is_page(chosen) => format!("{}.{PAGE}", self.name()),
            _ => self.ending_among(all),
        }
    }

    /// What is shown of it where it is not asked for as a file; nothing of most.
    pub fn on_terminal(self) -> Option<Format> {
        self.entry().on_terminal
    }

    /// One line for `--help`.
    pub fn summary(self) -> &'static str {
        self.entry().summary
    }

    /// How it is written.
    pub fn writer(self) -> Writer {
        self.entry().writer
    }

    /// Whether everything is in it, whatever is to be shown.
    pub fn is_whole(self) -> bool {
        self == Self::Recording
    }

    /// Whether the instructions that frames are at are part of it, where they were recorded.
    pub fn shows_opcodes(self) -> bool {
        use Format::{Binary, Gecko, Heatmap, Html, Jsonl};
        self.is_whole() || matches!(self, Html | Jsonl | Heatmap | Gecko | Binary)
    }

    /// Whether it is a directory of this name, not a file.
    pub fn is_directory(self, name: &Path) -> bool {
        matches!(self.writer(), Writer::Either { .. }) && !is_page(name)
    }
}

/// What stands before an ending and its dot in a file's name, packed or not.
pub(crate) fn stem<'n>(name: &'n [u8], ending: &str) -> Option<&'n [u8]> {
    let before = |name: &'n [u8]| name.strip_suffix(ending.as_bytes())?.strip_suffix(b".");
    before(name).or_else(|| before(name.strip_suffix(b".gz")?))
}

/// How the names of pages end.
const PAGE: &str = "html";

fn is_page(name: &Path) -> bool {
    let is = |ending: &str| name.extension().is_some_and(|own| own.eq_ignore_ascii_case(ending));
    is(PAGE) || is("htm")
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let format = Self::ALL.into_iter().find(|format| format.names().any(|own| own == name));
        format.map_or_else(|| by_name("format", Self::ALL, Self::name, name), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_are_unique() {
        let mut names = Vec::new();
        for format in Format::ALL {
            for name in format.names() {
                assert_eq!(name.parse(), Ok(format));
                names.push(name);
            }
            let is_text = |shown: Format| matches!(shown.writer(), Writer::File(_));
            assert!(format.on_terminal().is_none_or(is_text));
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        let error = "xml".parse::<Format>().unwrap_err().to_string();
        assert!(
            error.starts_with("there is no format 'xml'; it is one of table, pstats, "),
            "{error}"
        );
    }

    #[test]
    fn a_name_tells_the_format() {
        for format in Format::ALL {
            let name = format!("a.b.{}", format.extension());
            let expected = match format {
                Format::Tree | Format::Collapsed => Format::PstatsTable,
                other => other,
            };
            assert_eq!(Format::of_name(name.as_ref()), Some(expected), "{name}");
        }
        for (name, expected) in [
            ("d/%n_%p.HTML", Some(Format::Html)),
            ("a.json.gz", Some(Format::Gecko)),
            ("trace.json", Some(Format::Gecko)),
            ("a.trace.json.gz", Some(Format::Chrome)),
            ("a.folded", Some(Format::Collapsed)),
            ("a.pprof", Some(Format::Pprof)),
            ("a.html.d", None),
            ("html", None),
            ("-", None),
            ("a.gz", None),
        ] {
            assert_eq!(Format::of_name(name.as_ref()), expected, "{name}");
        }
        assert!(Format::Gecko.is_gzipped(Path::new("a.json.GZ")));
        assert!(!Format::Gecko.is_gzipped(Path::new("gz")));
        assert!(!Format::Pprof.is_gzipped(Path::new("a.pb.gz")));
    }

    #[test]
    fn what_is_a_directory_follows_from_its_name() {
        for (name, is_directory) in [
            ("a.html", false),
            ("d/a.b.HTM", false),
            ("a", true),
            ("a.heatmap", true),
            ("a.html.d", true),
            (".html", true),
        ] {
            assert_eq!(Format::Heatmap.is_directory(Path::new(name)), is_directory, "{name}");
            assert!(!Format::Html.is_directory(Path::new(name)));
        }
        let ending = |chosen| Format::Heatmap.ending_after(Path::new(chosen), &Format::ALL);
        assert_eq!([ending("a.html"), ending("a")], ["heatmap.html", "heatmap"]);
        let page = Format::Html.ending_after(Path::new("a.html"), &[Format::Html, Format::Heatmap]);
        assert_eq!(page, "html");
    }

    #[test]
    fn endings_differ() {
        let [table, collapsed, svg] = [Format::PstatsTable, Format::Collapsed, Format::Svg];
        assert_eq!(collapsed.ending_among(&[collapsed, svg]), "txt");
        assert_eq!(collapsed.ending_among(&[table, collapsed, svg]), "collapsed.txt");
        let mut endings = Format::ALL.map(|format| format.ending_among(&Format::ALL)).to_vec();
        endings.sort_unstable();
        endings.dedup();
        assert_eq!(endings.len(), Format::ALL.len());
    }
}
