//! Formats that a profile is written in.

mod aggregate;
pub mod binary;
pub mod callgrind;
pub mod chrome;
pub mod collapsed;
pub mod diff;
mod escape;
mod formats;
pub mod gecko;
pub mod heatmap;
pub mod html;
mod instructions;
pub mod jsonl;
pub mod pprof;
pub mod pstats_marshal;
pub mod pstats_table;
pub mod recording;
pub mod speedscope;
pub mod svg;
#[cfg(test)]
pub(crate) mod testing;
mod text;
pub mod tree;

pub(crate) use escape::{is_hidden, one_line};
pub(crate) use formats::stem;
pub use formats::{Format, Writer};
pub use pstats_table::{By, SortKey};

use crate::profile::{Pattern, Profile, Thread};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

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

/// How what is made for people to read looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// What rows are ordered by.
    pub sort: SortKey,
    /// Most rows shown, if that was chosen.
    pub limit: Option<usize>,
    /// Whether the summary of functions that stand out follows.
    pub summary: bool,
    /// Columns that a line may take; any number if `None`.
    pub width: Option<usize>,
    /// What a row of the table stands for.
    pub by: By,
    /// Whether it is in colours.
    pub is_colored: bool,
    /// What a tree folds besides libraries.
    pub hide: Vec<Pattern>,
    /// What a tree never folds.
    pub show: Vec<Pattern>,
    /// The recording that a flame graph page is compared with.
    pub baseline: Option<PathBuf>,
}

impl Default for Style {
    fn default() -> Self {
        Style {
            sort: SortKey::default(),
            limit: None,
            summary: true,
            width: None,
            by: By::default(),
            is_colored: false,
            hide: Vec::new(),
            baseline: None,
            show: Vec::new(),
        }
    }
}

/// Writes a profile in a format as one file.
pub fn write(
    format: Format,
    profile: &Profile,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format.writer() {
        Writer::File(write) | Writer::Either { write, .. } => write(profile, style, out),
    }
}

/// As [`write`], packed if the file's name says so.
pub fn write_as(
    name: &Path,
    format: Format,
    profile: &Profile,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    if !format.is_gzipped(name) {
        return write(format, profile, style, out);
    }
    // Formats write in small pieces.
    let mut packed = BufWriter::new(GzEncoder::new(out, Compression::default()));
    write(format, profile, style, &mut packed)?;
    packed.into_inner()?.finish().map(drop)
}

/// Writes what is to be seen at once: one after the other, an empty line between them.
pub fn write_all(
    formats: &[Format],
    profile: &Profile,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (index, format) in formats.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        write(*format, profile, style, out)?;
    }
    Ok(())
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
    fn every_format_writes_an_empty_profile() {
        for format in Format::ALL {
            let mut out = Vec::new();
            write(format, &testing::empty(), &Style::default(), &mut out).unwrap();
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
            let error = write(format, &profile, &Style::default(), &mut Full).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{format}");
        }
    }
}
