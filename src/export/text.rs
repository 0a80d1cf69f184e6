//! What text for people has in common: units, short names of files, places that fit a line, colours.

use std::collections::HashMap;

use anstyle::{AnsiColor, Style};

use super::escape::escape;

/// Columns of a location that are shown on however narrow a terminal.
const LEAST_ROOM: usize = 12;

pub(super) const ELLIPSIS: &str = "…";

/// The unit that suits the longest of some times in nanoseconds, and its length in nanoseconds.
pub(super) fn unit(times: impl Iterator<Item = u64>) -> (&'static str, f64) {
    match times.max().unwrap_or(0) {
        1_000_000_000.. => ("s", 1e9),
        1_000_000.. => ("ms", 1e6),
        _ => ("μs", 1e3),
    }
}

pub(super) fn percent(part: u64, all: u64) -> f64 {
    100.0 * part as f64 / all as f64
}

/// What each of some files is shown as: the fewest last parts of its path that none of the others ends with,
/// or all of it.
pub(super) fn short_names<'a>(files: impl Iterator<Item = &'a str>) -> HashMap<&'a str, &'a str> {
    let mut files: Vec<&str> = files.collect();
    // The files that have most last parts in common become neighbours.
    files.sort_by(|a, b| a.rsplit('/').cmp(b.rsplit('/')));
    files.dedup();
    let mut in_common = vec![0; files.len()];
    for (at, pair) in files.windows(2).enumerate() {
        let parts = pair[0].rsplit('/').zip(pair[1].rsplit('/'));
        let same = parts.take_while(|(a, b)| a == b).count();
        in_common[at] = same.max(in_common[at]);
        in_common[at + 1] = same;
    }
    let short = |(file, in_common): (&'a str, usize)| {
        let before = file.rmatch_indices('/').nth(in_common);
        (file, before.map_or(file, |(at, _)| &file[at + 1..]))
    };
    files.into_iter().zip(in_common).map(short).collect()
}

/// Where something is: the short name of its file, the line if it is one, and the function.
#[derive(Clone)]
pub(super) struct Location {
    file: String,
    line: String,
    function: String,
}

impl Location {
    pub fn new(file: &str, line: String, function: &str) -> Self {
        Location {
            file: escape(file, None).into_owned(),
            line,
            function: format!("({})", escape(function, None)),
        }
    }

    pub fn length(&self) -> usize {
        [&self.file, &self.line, &self.function].iter().map(|part| part.chars().count()).sum()
    }

    /// The location, cut to end at the last column of a line that has some of them taken: the end of the
    /// file's name goes first, then the line, then the beginning of the function's name.
    pub fn within(&self, columns: Option<usize>, taken: usize) -> Self {
        let room = columns.map(|columns| columns.saturating_sub(taken).max(LEAST_ROOM));
        let Some(room) = room.filter(|room| self.length() > *room) else { return self.clone() };
        let room = room - ELLIPSIS.chars().count();
        let place = self.line.chars().count() + self.function.chars().count();
        if let Some(room) = room.checked_sub(place) {
            let kept: String = self.file.chars().take(room).collect();
            return Location { file: kept + ELLIPSIS, ..self.clone() };
        }
        let too_many = self.function.chars().count().saturating_sub(room);
        let kept: String = self.function.chars().skip(too_many).collect();
        Location { file: String::new(), line: String::new(), function: ELLIPSIS.to_owned() + &kept }
    }

    /// The location with each part in its colour.
    pub fn painted(&self, ink: Ink) -> String {
        let line = self.line.strip_prefix(':').map(|line| format!(":{}", ink.number(line)));
        let line = line.unwrap_or_default();
        let Some(name) = self.function.strip_prefix('(').and_then(|name| name.strip_suffix(')'))
        else {
            return format!("{}{line}{}", ink.file(&self.file), ink.name(&self.function));
        };
        format!("{}{line}({})", ink.file(&self.file), ink.name(name))
    }
}

/// Whether text is in colours, and which.
#[derive(Clone, Copy)]
pub(super) struct Ink(pub bool);

impl Ink {
    /// Headings.
    pub fn title(self, text: &str) -> String {
        self.paint(AnsiColor::Blue.on_default().bold(), text)
    }

    pub fn file(self, text: &str) -> String {
        self.paint(AnsiColor::Green.on_default(), text)
    }

    /// Lines of files, and words that are explained.
    pub fn number(self, text: &str) -> String {
        self.paint(AnsiColor::Yellow.on_default(), text)
    }

    /// Functions.
    pub fn name(self, text: &str) -> String {
        self.paint(AnsiColor::Cyan.on_default(), text)
    }

    pub fn bad(self, text: &str) -> String {
        self.paint(AnsiColor::Red.on_default(), text)
    }

    pub fn good(self, text: &str) -> String {
        self.paint(AnsiColor::Green.on_default(), text)
    }

    /// What is of less weight.
    pub fn aside(self, text: &str) -> String {
        self.paint(Style::new().dimmed(), text)
    }

    /// What takes much, some or little of the time, a share from 0 to 1.
    pub fn share(self, share: f64, text: &str) -> String {
        match share {
            0.5.. => self.paint(AnsiColor::Red.on_default().bold(), text),
            0.2.. => self.paint(AnsiColor::Red.on_default(), text),
            0.05.. => self.paint(AnsiColor::Yellow.on_default(), text),
            _ => self.paint(AnsiColor::Green.on_default(), text),
        }
    }

    fn paint(self, style: Style, text: &str) -> String {
        match self.0 && !text.is_empty() {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_the_shortest_that_tell_files_apart() {
        for (files, expected) in [
            (&["/lib/json/__init__.py"][..], &["__init__.py"][..]),
            (&["/a/x.py", "/a/x.py"], &["x.py", "x.py"]),
            (
                &["/l/json/__init__.py", "/l/asyncio/__init__.py", "/l/json/decoder.py"],
                &["json/__init__.py", "asyncio/__init__.py", "decoder.py"],
            ),
            (&["/a/b/c.py", "/x/b/c.py", "/x/d/c.py"], &["a/b/c.py", "x/b/c.py", "d/c.py"]),
            (&["a.py", "x/a.py", "/x/a.py"], &["a.py", "x/a.py", "/x/a.py"]),
            (&["/y/x/a.py", "/a.py", "xa.py"], &["x/a.py", "/a.py", "xa.py"]),
            (&["", "/", "//", "x/", "/y/x/"], &["", "/", "//", "x/", "y/x/"]),
            (&["~", "<string>", "é/ü.py", "e/ü.py"], &["~", "<string>", "é/ü.py", "e/ü.py"]),
            (&["x/"], &[""]),
            (&[], &[]),
        ] {
            let names = short_names(files.iter().copied());
            assert_eq!(files.iter().map(|file| names[file]).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn locations_are_cut_to_the_room_there_is() {
        let location = Location::new("encoder.py", ":263".to_owned(), "JSON.iterencode");
        for (room, shown) in [
            (31, "encoder.py:263(JSON.iterencode)"),
            (30, "encoder.…:263(JSON.iterencode)"),
            (22, "…:263(JSON.iterencode)"),
            (21, "…(JSON.iterencode)"),
            (18, "…(JSON.iterencode)"),
            (17, "…JSON.iterencode)"),
            (12, "…iterencode)"),
            (0, "…iterencode)"),
        ] {
            assert_eq!(location.within(Some(50 + room), 50).painted(Ink(false)), shown);
        }
        assert_eq!(
            location.within(None, 50).painted(Ink(false)),
            "encoder.py:263(JSON.iterencode)"
        );
        let location = Location::new("json/__init__.py", ":1".to_owned(), "f");
        assert_eq!(location.within(Some(14), 0).painted(Ink(false)), "json/__i…:1(f)");
    }

    #[test]
    fn colours_are_where_they_are_wanted() {
        let location = Location::new("a.py", ":7".to_owned(), "f");
        let painted = location.painted(Ink(true));
        assert_eq!(painted, "\x1b[32ma.py\x1b[0m:\x1b[33m7\x1b[0m(\x1b[36mf\x1b[0m)");
        assert_eq!(location.painted(Ink(false)), "a.py:7(f)");
        assert_eq!(Ink(true).title(""), "");
    }
}
