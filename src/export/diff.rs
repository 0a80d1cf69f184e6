//! Two profiles side by side: which functions take more of the time than before, which take less, and what of
//! that sampling alone could have done.
//!
//! A share `p` of `n` samples has the standard error `sqrt(p (1 - p) / n)`; that of a difference is the root of
//! the sum of the squares. Where a share is nothing or all, half a sample more or less is taken.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::str::FromStr;

use super::aggregate::{Row, Totals, Tree, by_function};
use super::text::{Ink, Location, short_names};
use super::{Style, UnknownName, by_name};
use crate::profile::{Function, Origin, Profile};

/// Rows of each part that are shown if no other number is asked for.
const USUAL_ROWS: usize = 15;
/// A change of more standard errors than this is no accident of sampling; one of a thousand others is this large.
const SIGNIFICANT: f64 = 3.3;
/// A smaller change, in percent, shows as nothing.
const LEAST_CHANGE: f64 = 0.05;

/// What rows are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiffKey {
    /// Time in the function itself: `self`.
    #[default]
    Own,
    /// Time in it and what it calls: `total`.
    Total,
}

impl DiffKey {
    /// Everything that rows can be ordered by.
    pub const ALL: [Self; 2] = [Self::Own, Self::Total];

    /// The name that the option uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "self",
            Self::Total => "total",
        }
    }
}

impl FromStr for DiffKey {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        by_name("sort key", Self::ALL, Self::name, name)
    }
}

/// How two profiles are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What rows are ordered by.
    pub sort: DiffKey,
    /// Whether time counts as it is, not as a share of all of its profile.
    pub is_absolute: bool,
}

/// A part of the time before and after, in percent of the profile's, or in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Change {
    before: f64,
    after: f64,
    /// The standard error of the difference.
    error: f64,
}

impl Change {
    fn by(&self) -> f64 {
        self.after - self.before
    }

    fn is_significant(&self) -> bool {
        self.by().abs() > SIGNIFICANT * self.error
    }
}

/// One function in both.
struct Changed<'a> {
    row: Row<'a>,
    own: Change,
    total: Change,
}

impl Changed<'_> {
    fn key(&self, sort: DiffKey) -> &Change {
        match sort {
            DiffKey::Own => &self.own,
            DiffKey::Total => &self.total,
        }
    }
}

/// All of a profile's time and samples.
struct Side {
    ns: u64,
    samples: u64,
    /// What one nanosecond is, in percent or seconds.
    unit: f64,
}

impl Side {
    fn new(profile: &Profile, is_absolute: bool) -> Self {
        let sum = |number: fn(&crate::profile::Sample) -> u64| {
            profile.samples.iter().map(number).fold(0, u64::saturating_add)
        };
        let ns = sum(|sample| sample.weight_ns);
        let unit = if is_absolute { 1e-9 } else { 100.0 / ns.max(1) as f64 };
        Self { ns, samples: sum(|sample| sample.count), unit }
    }

    /// A part of the time, and its standard error.
    fn part(&self, ns: u64) -> (f64, f64) {
        let least = 0.5 / (self.samples.max(1) as f64);
        let share = ns as f64 / self.ns.max(1) as f64;
        let likely = share.clamp(least, 1.0 - least);
        let error = (likely * (1.0 - likely) / self.samples.max(1) as f64).sqrt();
        let whole = self.ns as f64 * self.unit;
        (share * whole, error * whole)
    }
}

/// Writes the table.
pub fn write(
    before: &Profile,
    after: &Profile,
    comparison: Comparison,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let sides = [before, after].map(|profile| Side::new(profile, comparison.is_absolute));
    let ink = Ink(style.is_colored);
    for (name, profile, side) in [("before", before, &sides[0]), ("after", after, &sides[1])] {
        let program = super::one_line(&profile.meta.program);
        let seconds = side.ns as f64 / 1e9;
        writeln!(out, "{name:>7}: {program}, {} samples of {seconds:.3} s", side.samples)?;
    }
    if sides.iter().any(|side| side.ns == 0) {
        return writeln!(out, "\nThere is nothing to compare: one of them has no samples.");
    }
    let mut rows = changes(before, after, &sides);
    let least = if comparison.is_absolute { 0.0005 } else { LEAST_CHANGE };
    rows.retain(|row| row.key(comparison.sort).by().abs() >= least);
    rows.sort_by(|a, b| order(comparison.sort, a, b));
    let limit = style.limit.unwrap_or(USUAL_ROWS);
    let (slower, faster): (Vec<&Changed>, Vec<&Changed>) =
        rows.iter().partition(|row| row.key(comparison.sort).by() > 0.0);
    for (title, rows) in [("Slower", slower), ("Faster", faster)] {
        write_part(title, &rows, limit, comparison, style, out)?;
    }
    let unit = if comparison.is_absolute { "seconds" } else { "percent of the time sampled" };
    writeln!(out, "\n{}", ink.title("Legend:"))?;
    for (word, meaning) in [
        ("self, total", format!("in the function itself, in it and what it calls; in {unit}")),
        ("±", "standard error of the change, from the number of samples alone".to_owned()),
        ("*", format!("more than {SIGNIFICANT} times that: no accident of sampling")),
    ] {
        writeln!(out, "  {}: {meaning}", ink.number(word))?;
    }
    Ok(())
}

fn write_part(
    title: &str,
    rows: &[&Changed<'_>],
    limit: usize,
    comparison: Comparison,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let ink = Ink(style.is_colored);
    if rows.is_empty() {
        return writeln!(out, "\n{}", ink.title(&format!("{title}: nothing")));
    }
    let (shown, left_out) = rows.split_at(limit.min(rows.len()));
    let files = short_names(shown.iter().map(|row| row.row.file));
    writeln!(out, "\n{}", ink.title(&format!("{title}:")))?;
    let head = format!("{:>9} {:>7}  {:>7} {:>7}  ", "self", "±", "before", "after");
    let head = head.clone() + &head.replace(" self", "total");
    writeln!(out, "{}", ink.title(&format!("{head}filename(function)")))?;
    let digits = if comparison.is_absolute { 3 } else { 1 };
    for row in shown {
        let mut line = String::new();
        for change in [&row.own, &row.total] {
            let Change { before, after, error } = change;
            let mark = if change.is_significant() { "*" } else { " " };
            let by = format!("{:>+9.digits$}", change.by());
            line += &match change.is_significant() {
                true if change.by() > 0.0 => ink.bad(&by),
                true => ink.good(&by),
                false => ink.aside(&by),
            };
            line += &format!(" {error:>6.digits$}{mark}  {before:>7.digits$} {after:>7.digits$}  ");
        }
        let location = Location::new(files[row.row.file], String::new(), row.row.name);
        writeln!(out, "{line}{}", location.within(style.width, head.chars().count()).painted(ink))?;
    }
    if !left_out.is_empty() {
        let significant =
            left_out.iter().filter(|row| row.key(comparison.sort).is_significant()).count();
        let line = format!("not shown: {} more, {significant} of them marked", left_out.len());
        writeln!(out, "{}", ink.aside(&line))?;
    }
    Ok(())
}

/// The largest changes first.
fn order(sort: DiffKey, a: &Changed<'_>, b: &Changed<'_>) -> Ordering {
    let by = |row: &Changed<'_>, sort| row.key(sort).by().abs();
    by(b, sort)
        .total_cmp(&by(a, sort))
        .then_with(|| by(b, DiffKey::Total).total_cmp(&by(a, DiffKey::Total)))
        .then_with(|| a.row.cmp(&b.row))
}

/// Every function of both. Functions are the same if their names and files are.
fn changes<'a>(before: &'a Profile, after: &'a Profile, sides: &[Side; 2]) -> Vec<Changed<'a>> {
    let mut functions: HashMap<(&str, &str), (Row<'a>, [Totals; 2])> = HashMap::new();
    for (index, (profile, names)) in
        [before, after].into_iter().zip(names(before, after)).enumerate()
    {
        let groups = by_function(profile);
        let tree = Tree::new(profile, &groups.of_frame);
        let totals = tree.totals(profile, groups.keys.len());
        for (row, totals) in groups.keys.into_iter().zip(totals) {
            let key = (names[row.file], row.name);
            let (known, of_both) = functions.entry(key).or_insert((row, Default::default()));
            *known = row;
            of_both[index].add(&totals);
        }
    }
    let change = |[before, after]: [u64; 2]| {
        let ((before, before_error), (after, after_error)) =
            (sides[0].part(before), sides[1].part(after));
        Change { before, after, error: before_error.hypot(after_error) }
    };
    functions
        .into_values()
        .map(|(row, totals)| Changed {
            row,
            own: change(totals.map(|totals| totals.direct.ns)),
            total: change(totals.map(|totals| totals.cumulative.ns)),
        })
        .collect()
}

/// By what name each file of both profiles is known. Libraries are known by their paths below the
/// directory of libraries; so are the programs' own files below their common directory, if the two have
/// none with the same path.
fn names<'a>(before: &'a Profile, after: &'a Profile) -> [HashMap<&'a str, &'a str>; 2] {
    let own = [before, after].map(|profile| {
        let own = profile.functions.iter().filter(|f| f.origin() == Origin::Program);
        own.map(|function| &*function.file).collect::<HashSet<_>>()
    });
    let is_elsewhere = own[0].is_disjoint(&own[1]);
    [(before, &own[0]), (after, &own[1])].map(|(profile, own)| {
        let common = if is_elsewhere { common_directory(own) } else { 0 };
        let name = |function: &'a Function| match function.origin() {
            Origin::Program => function.file.get(common..).unwrap_or(&function.file),
            _ => function.path_in_library(),
        };
        profile.functions.iter().map(|function| (&*function.file, name(function))).collect()
    })
}

/// The length of the directory that all of some files are in, its last slash included.
fn common_directory(files: &HashSet<&str>) -> usize {
    let directory = |file: &str| file.rfind('/').map_or(0, |at| at + 1);
    let Some(first) = files.iter().next() else { return 0 };
    files.iter().fold(directory(first), |common, file| {
        let same = first.bytes().zip(file.bytes()).take(common).take_while(|(a, b)| a == b).count();
        directory(first.get(..same).unwrap_or_default())
    })
}

/// The stacks of both as lines for inferno: functions without threads and lines, and the microseconds before and
/// after, the time of the first scaled to that of the second unless it is to be compared as it is.
pub(super) fn folded(before: &Profile, after: &Profile, is_absolute: bool) -> Vec<String> {
    let sides = [before, after].map(|profile| Side::new(profile, is_absolute).ns.max(1) as f64);
    let scales = [if is_absolute { 1.0 } else { sides[1] / sides[0] }, 1.0];
    let mut times: HashMap<String, [f64; 2]> = HashMap::new();
    for (index, profile) in [before, after].into_iter().enumerate() {
        let groups = by_function(profile);
        let tree = Tree::new(profile, &groups.of_frame);
        let labels: Vec<String> =
            groups.keys.iter().map(super::collapsed::function_label).collect();
        let mut texts: Vec<String> = vec![String::new()];
        for (node, amount) in tree.own(profile).into_iter().enumerate() {
            if node > 0 {
                let parent = &texts[tree.parent[node] as usize];
                let gap = if parent.is_empty() { "" } else { ";" };
                texts.push(format!("{parent}{gap}{}", labels[tree.group[node] as usize]));
            }
            if amount.ns > 0 {
                times.entry(texts[node].clone()).or_default()[index] +=
                    amount.ns as f64 * scales[index];
            }
        }
    }
    let us = |ns: f64| (ns / 1e3).round() as u64;
    let mut stacks: Vec<(String, [f64; 2])> = times.into_iter().collect();
    stacks.sort_by(|a, b| a.0.cmp(&b.0));
    stacks
        .into_iter()
        .map(|(stack, [before, after])| format!("{stack} {} {}", us(before), us(after)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{empty, profile, sample, text, without_colours};
    use crate::profile::ThreadId;

    fn table(before: &Profile, after: &Profile, comparison: Comparison) -> String {
        text(|out| write(before, after, comparison, &Style::default(), out))
    }

    /// The rows below a title.
    fn rows(table: &str, title: &str) -> Vec<String> {
        let rows = table.lines().skip_while(|line| !line.starts_with(title)).skip(2);
        let rows = rows.take_while(|line| !line.is_empty());
        rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn shares_are_compared_and_what_counts_is_marked() {
        let before = profile(&[("main:1 f:2", 500), ("main:1 g:3", 500), ("main:1 h:4", 3)]);
        // Twice as long; f has three times the time that it had, h the share.
        let after = profile(&[("main:9 f:8", 1500), ("main:9 g:7", 500), ("main:9 h:6", 8)]);
        let shown = table(&before, &after, Comparison::default());
        assert!(shown.starts_with(" before: t.py, 1003 samples of 1.003 s\n  after: t.py, 2008 "));
        // sqrt(0.4985 * 0.5015 / 1003 + 0.747 * 0.253 / 2008) is 1.85%.
        let f = "+24.9 1.9* 49.9 74.7 +24.9 1.9* 49.9 74.7 t.py(f)";
        assert_eq!(rows(&shown, "Slower:"), [f, "+0.1 0.2 0.3 0.4 +0.1 0.2 0.3 0.4 t.py(h)"]);
        assert_eq!(rows(&shown, "Faster:"), ["-25.0 1.9* 49.9 24.9 -25.0 1.9* 49.9 24.9 t.py(g)"]);
        let absolute = Comparison { is_absolute: true, ..Comparison::default() };
        let shown = table(&before, &after, absolute);
        assert!(rows(&shown, "Slower:")[0].starts_with("+1.000 0.025* 0.500 1.500 "), "{shown}");
        assert!(shown.contains("Faster: nothing") && !shown.contains("t.py(g)"), "{shown}");
    }

    #[test]
    fn what_is_new_or_gone_has_an_error_too() {
        let (before, after) = (profile(&[("a:1", 100)]), profile(&[("a:1 b:2", 1), ("a:1", 99)]));
        let shown = table(&before, &after, Comparison::default());
        assert!(rows(&shown, "Slower:")[0].starts_with("+1.0 1.2 0.0 1.0 "), "{shown}");
        let total = Comparison { sort: DiffKey::Total, ..Comparison::default() };
        assert!(table(&before, &after, total).contains("Faster: nothing"));
        assert!(table(&before, &empty(), total).ends_with("one of them has no samples.\n"));
    }

    #[test]
    fn libraries_and_moved_programs_are_the_same_code() {
        let with = |own: &str, library: &str| {
            let mut profile = empty();
            let paths = [(format!("{own}/app.py"), "main"), (format!("{own}/lib/x.py"), "f")];
            let library = format!("{library}/json/decoder.py");
            let frames = paths.iter().map(|(file, name)| (file.as_str(), *name, 1));
            sample(&mut profile, ThreadId(0), frames.chain([(library.as_str(), "decode", 1)]), 10);
            profile
        };
        let before = with("/old", "/usr/lib/python3.11");
        for (own, library) in
            [("/old", "/opt/lib/python3.15"), ("/new/place", "/usr/lib/python3.11")]
        {
            let shown = table(&before, &with(own, library), Comparison::default());
            assert!(shown.contains("Slower: nothing\n\nFaster: nothing"), "{shown}");
        }
    }

    #[test]
    fn colours_add_nothing_else() {
        let (before, after) = (profile(&[("a:1", 900), ("b:1", 100)]), profile(&[("b:1", 900)]));
        let style = Style { is_colored: true, ..Style::default() };
        let colored = text(|out| write(&before, &after, Comparison::default(), &style, out));
        assert!(colored.contains("\x1b[31m    +90.0\x1b[0m"), "{colored}");
        assert_eq!(without_colours(&colored), table(&before, &after, Comparison::default()));
    }

    #[test]
    fn pictures_have_both_times() {
        let before = profile(&[("a:1 b:2", 10), ("c;d:1", 10)]);
        let after = profile(&[("a:7 b:2", 20), ("a:9 b:3", 10), ("a:1", 10)]);
        let lines = ["t.py:a() 0 10000", "t.py:a();t.py:b() 20000 30000", "t.py:c\\x3bd() 20000 0"];
        assert_eq!(folded(&before, &after, false), lines);
        assert_eq!(folded(&before, &after, true)[1], "t.py:a();t.py:b() 10000 30000");
        let picture = text(|out| crate::export::svg::write_difference(&before, &after, false, out));
        assert!(picture.contains("t.py:b() (30,000 µs, 75.00%; +25.00%)"), "{picture}");
    }
}
