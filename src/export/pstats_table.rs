//! The text table: a row for each line of code, its samples and its times, and what stands out among them.

use super::aggregate::{Row, Totals, Tree, by_definition, by_function, by_line};
use super::text::{Ink, Location, percent, short_names, unit};
use super::{Style, UnknownName, base_name, by_name};
use crate::profile::Profile;
use std::cmp::Ordering;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

/// What rows are ordered by: the largest first, names from A to Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortKey {
    /// Direct samples: `nsamples`.
    #[default]
    Nsamples,
    /// Direct time: `tottime`.
    Tottime,
    /// Cumulative time: `cumtime`.
    Cumtime,
    /// Direct share of the samples: `sample-pct`.
    SamplePct,
    /// Cumulative share of the samples: `cumul-pct`.
    CumulPct,
    /// Cumulative samples: `nsamples-cumul`.
    NsamplesCumul,
    /// File, line and function: `name`.
    Name,
}

impl SortKey {
    /// Every key.
    pub const ALL: [SortKey; 7] = [
        SortKey::Nsamples,
        SortKey::Tottime,
        SortKey::Cumtime,
        SortKey::SamplePct,
        SortKey::CumulPct,
        SortKey::NsamplesCumul,
        SortKey::Name,
    ];

    /// The name that the option uses.
    pub fn name(self) -> &'static str {
        match self {
            SortKey::Nsamples => "nsamples",
            SortKey::Tottime => "tottime",
            SortKey::Cumtime => "cumtime",
            SortKey::SamplePct => "sample-pct",
            SortKey::CumulPct => "cumul-pct",
            SortKey::NsamplesCumul => "nsamples-cumul",
            SortKey::Name => "name",
        }
    }
}

impl fmt::Display for SortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SortKey {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        by_name("sort key", SortKey::ALL, SortKey::name, name)
    }
}

/// What a row of the table stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// A line that was executing: `line`.
    #[default]
    Line,
    /// A function: `function`.
    Function,
}

impl By {
    /// Everything that rows can stand for.
    pub const ALL: [By; 2] = [By::Line, By::Function];

    /// The name that the option uses.
    pub fn name(self) -> &'static str {
        match self {
            By::Line => "line",
            By::Function => "function",
        }
    }

    /// Several of what rows stand for.
    fn plural(self) -> &'static str {
        match self {
            By::Line => "lines",
            By::Function => "functions",
        }
    }
}

impl FromStr for By {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        by_name("kind of row", By::ALL, By::name, name)
    }
}

/// Functions that each part of the summary names.
const SUMMARY_LINES: usize = 3;

/// Columns of the numbers where there is room for them, and what stands between.
const USUAL_WIDTHS: [usize; 5] = [15, 8, 12, 8, 12];
const USUAL_GAP: &str = "  ";

/// Rows that are shown if no other number is asked for.
const USUAL_ROWS: usize = 15;

const LEGEND: [(&str, &str); 6] = [
    ("nsamples", "direct/cumulative samples: executing / anywhere on the stack"),
    ("sample%", "direct samples as a share of all samples"),
    ("tottime", "time the direct samples stand for"),
    ("cumul%", "cumulative samples as a share of all samples"),
    ("cumtime", "time the cumulative samples stand for"),
    ("filename:lineno(function)", ""),
];

type Line<'a> = (Row<'a>, Totals);

/// Writes the table. Names are escaped, as they go to a terminal.
pub fn write(profile: &Profile, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let all: u64 = profile.samples.iter().map(|sample| sample.count).fold(0, u64::saturating_add);
    if all == 0 {
        return writeln!(out, "No samples were collected.");
    }
    let ink = Ink(style.is_colored);
    let groups = match style.by {
        By::Line => by_line(profile),
        By::Function => by_definition(profile),
    };
    let tree = Tree::new(profile, &groups.of_frame);
    let totals = tree.totals(profile, groups.keys.len());
    let mut lines: Vec<Line> = groups.keys.into_iter().zip(totals).collect();
    // A frame that only stacks without samples use is in no sample.
    lines.retain(|(_, totals)| totals.cumulative.samples > 0);
    lines.sort_by(|a, b| order(style.sort, a, b));
    let shown = lines.len().min(style.limit.unwrap_or(USUAL_ROWS));
    let left_out = lines.split_off(shown);
    write_rows(&lines, all, style.width, ink, out)?;
    if !left_out.is_empty() {
        let direct = left_out.iter().map(|(_, totals)| totals.direct.samples);
        let share = percent(direct.fold(0, u64::saturating_add), all);
        let rows = left_out.len();
        let kind = if rows == 1 { style.by.name() } else { style.by.plural() };
        let line = format!("not shown: {rows} more {kind} with {share:.1}% of the direct samples");
        writeln!(out, "{}", ink.aside(&line))?;
    }
    writeln!(out, "\n{}", ink.title("Legend:"))?;
    for (word, meaning) in LEGEND {
        let meaning = match (meaning, style.by) {
            ("", By::Line) => "the line that was executing, and its function",
            ("", By::Function) => "the first line of the function, and the function",
            (meaning, _) => meaning,
        };
        writeln!(out, "  {}: {meaning}", ink.number(word))?;
    }
    if style.summary { write_summary(profile, all, style.width, ink, out) } else { Ok(()) }
}

fn order(sort: SortKey, (row_a, a): &Line<'_>, (row_b, b): &Line<'_>) -> Ordering {
    let key = |totals: &Totals| match sort {
        SortKey::Nsamples | SortKey::SamplePct => totals.direct.samples,
        SortKey::Tottime => totals.direct.ns,
        SortKey::Cumtime => totals.cumulative.ns,
        SortKey::CumulPct | SortKey::NsamplesCumul | SortKey::Name => totals.cumulative.samples,
    };
    let by_samples = key(b).cmp(&key(a)).then(b.cumulative.samples.cmp(&a.cumulative.samples));
    // Rows show the ends of their files' paths.
    let by_name = base_name(row_a.file).cmp(base_name(row_b.file)).then_with(|| row_a.cmp(row_b));
    match sort {
        SortKey::Name => by_name,
        _ => by_samples.then(by_name),
    }
}

fn write_rows(
    lines: &[Line<'_>],
    all: u64,
    columns: Option<usize>,
    ink: Ink,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (tot_unit, tot_ns) = unit(lines.iter().map(|(_, totals)| totals.direct.ns));
    let (cum_unit, cum_ns) = unit(lines.iter().map(|(_, totals)| totals.cumulative.ns));
    let shown = short_names(lines.iter().map(|(row, _)| row.file));
    let mut rows = vec![(
        [
            "nsamples".to_owned(),
            "sample%".to_owned(),
            format!("tottime ({tot_unit})"),
            "cumul%".to_owned(),
            format!("cumtime ({cum_unit})"),
        ],
        Location::new("filename", ":lineno".to_owned(), "function"),
    )];
    for (row, Totals { direct, cumulative }) in lines {
        let numbers = [
            format!("{}/{}", direct.samples, cumulative.samples),
            format!("{:.1}", percent(direct.samples, all)),
            format!("{:.3}", direct.ns as f64 / tot_ns),
            format!("{:.1}", percent(cumulative.samples, all)),
            format!("{:.3}", cumulative.ns as f64 / cum_ns),
        ];
        rows.push((numbers, Location::new(shown[row.file], format!(":{}", row.line), row.name)));
    }
    let mut widths = [0; 5];
    for (numbers, _) in &rows {
        for (width, number) in widths.iter_mut().zip(numbers) {
            *width = (*width).max(number.chars().count());
        }
    }
    let longest = rows.iter().map(|(_, location)| location.length()).max().unwrap_or(0);
    let wide = std::array::from_fn(|at| widths[at].max(USUAL_WIDTHS[at]));
    let is_narrow = columns.is_some_and(|columns| taken(wide, USUAL_GAP) + longest > columns);
    let (widths, gap) = if is_narrow { (widths, " ") } else { (wide, USUAL_GAP) };
    writeln!(out, "{}", ink.title("Profile Stats:"))?;
    for (index, (numbers, location)) in rows.iter().enumerate() {
        let numbers = numbers.iter().zip(widths);
        let numbers: String =
            numbers.map(|(number, width)| format!("{number:>width$}{gap}")).collect();
        let location = location.within(columns, taken(widths, gap));
        match index {
            0 => writeln!(out, "{}", ink.title(&(numbers + &location.painted(Ink(false)))))?,
            _ => writeln!(out, "{numbers}{}", location.painted(ink))?,
        }
    }
    Ok(())
}

/// Columns that the numbers of a row take.
fn taken(widths: [usize; 5], gap: &str) -> usize {
    widths.iter().map(|width| width + gap.len()).sum()
}

/// Writes the functions that stand out, over the whole profile.
fn write_summary(
    profile: &Profile,
    all: u64,
    columns: Option<usize>,
    ink: Ink,
    out: &mut dyn Write,
) -> io::Result<()> {
    let groups = by_function(profile);
    let tree = Tree::new(profile, &groups.of_frame);
    let totals = tree.totals(profile, groups.keys.len());
    let functions: Vec<Function> = groups
        .keys
        .iter()
        .zip(totals)
        .map(|(row, totals)| Function {
            row: *row,
            direct: totals.direct.samples,
            cumulative: totals.cumulative.samples,
        })
        .collect();
    let shown = short_names(functions.iter().map(|function| function.row.file));
    let mut part =
        |title: &str, score: fn(&Function<'_>) -> f64, text: &dyn Fn(&Function<'_>) -> String| {
            let mut best: Vec<&Function> = functions.iter().filter(|f| score(f) > 0.0).collect();
            best.sort_by(|a, b| {
                score(b)
                    .total_cmp(&score(a))
                    .then_with(|| b.cumulative.cmp(&a.cumulative))
                    .then_with(|| a.row.cmp(&b.row))
            });
            if best.is_empty() {
                return Ok(());
            }
            writeln!(out, "\n{}", ink.title(&format!("{title}:")))?;
            for function in best.into_iter().take(SUMMARY_LINES) {
                let numbers = format!("  {}: ", text(function));
                let Row { file, name, .. } = function.row;
                let location = Location::new(shown[file], String::new(), name);
                let taken = numbers.chars().count();
                writeln!(out, "{numbers}{}", location.within(columns, taken).painted(ink))?;
            }
            Ok(())
        };
    part("Hot spots (direct/cumulative ratio)", |f| f.ratio(), &|f| {
        format!(
            "{:.3} direct/cumulative, {:.1}% of samples direct",
            f.ratio(),
            percent(f.direct, all)
        )
    })?;
    part("Call frequency (indirect calls)", |f| f.indirect() as f64, &|f| {
        let share = percent(f.cumulative, all);
        format!("{} indirect calls, on the stack in {share:.1}% of samples", f.indirect())
    })?;
    part("Call magnification (cumulative/direct)", |f| f.magnification(), &|f| {
        let (factor, indirect) = (f.magnification(), f.indirect());
        format!("{factor:.1}x, {indirect} indirect calls from {} direct", f.direct)
    })
}

/// A function in the summary, with its samples.
struct Function<'a> {
    row: Row<'a>,
    direct: u64,
    cumulative: u64,
}

impl Function<'_> {
    fn ratio(&self) -> f64 {
        self.direct as f64 / self.cumulative.max(1) as f64
    }

    fn indirect(&self) -> u64 {
        self.cumulative - self.direct
    }

    /// 0 where nothing is magnified.
    fn magnification(&self) -> f64 {
        if self.direct == 0 || self.indirect() == 0 {
            0.0
        } else {
            self.cumulative as f64 / self.direct as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{empty, profile, sample, text, without_colours};
    use crate::profile::ThreadId;

    fn table(profile: &Profile, style: &Style) -> String {
        text(|out| write(profile, style, out))
    }

    const PLAIN: Style = Style {
        sort: SortKey::Nsamples,
        limit: None,
        summary: false,
        width: None,
        by: By::Line,
        is_colored: false,
        hide: Vec::new(),
        show: Vec::new(),
        baseline: None,
    };

    fn names(table: &str) -> Vec<&str> {
        let is_row = |line: &&str| !line.is_empty() && !line.starts_with("not shown");
        let rows = table.lines().skip(2).take_while(is_row);
        rows.map(|line| line.rsplit_once(' ').unwrap().1).collect()
    }

    #[test]
    fn golden() {
        let profile = profile(&[
            ("main:10 rec:7 rec:7 leaf:4", 1200),
            ("main:10 leaf:4", 281),
            ("main:10 rec:7", 2),
            ("main:10 rec:8 leaf:5", 17),
        ]);
        let expected = "\
Profile Stats:
       nsamples   sample%   tottime (s)    cumul%   cumtime (s)  filename:lineno(function)
      1481/1481      98.7         1.481      98.7         1.481  t.py:4(leaf)
          17/17       1.1         0.017       1.1         0.017  t.py:5(leaf)
         2/1202       0.1         0.002      80.1         1.202  t.py:7(rec)
         0/1500       0.0         0.000     100.0         1.500  t.py:10(main)
           0/17       0.0         0.000       1.1         0.017  t.py:8(rec)

Legend:
  nsamples: direct/cumulative samples: executing / anywhere on the stack
  sample%: direct samples as a share of all samples
  tottime: time the direct samples stand for
  cumul%: cumulative samples as a share of all samples
  cumtime: time the cumulative samples stand for
  filename:lineno(function): the line that was executing, and its function

Hot spots (direct/cumulative ratio):
  1.000 direct/cumulative, 99.9% of samples direct: t.py(leaf)
  0.002 direct/cumulative, 0.1% of samples direct: t.py(rec)

Call frequency (indirect calls):
  1500 indirect calls, on the stack in 100.0% of samples: t.py(main)
  1217 indirect calls, on the stack in 81.3% of samples: t.py(rec)

Call magnification (cumulative/direct):
  609.5x, 1217 indirect calls from 2 direct: t.py(rec)
";
        assert_eq!(table(&profile, &Style::default()), expected);
        let without_summary = expected.split("\nHot spots").next().unwrap();
        assert_eq!(table(&profile, &PLAIN), without_summary);
    }

    #[test]
    fn every_sort_key() {
        let mut profile = profile(&[("a:1 b:2", 5), ("a:1", 4), ("c:3", 3)]);
        profile.samples[2].weight_ns = 60_000_000;
        let sorted = |sort| table(&profile, &Style { sort, ..PLAIN });
        for (key, order) in [
            (SortKey::Nsamples, ["t.py:2(b)", "t.py:1(a)", "t.py:3(c)"]),
            (SortKey::SamplePct, ["t.py:2(b)", "t.py:1(a)", "t.py:3(c)"]),
            (SortKey::Tottime, ["t.py:3(c)", "t.py:2(b)", "t.py:1(a)"]),
            (SortKey::Cumtime, ["t.py:3(c)", "t.py:1(a)", "t.py:2(b)"]),
            (SortKey::CumulPct, ["t.py:1(a)", "t.py:2(b)", "t.py:3(c)"]),
            (SortKey::NsamplesCumul, ["t.py:1(a)", "t.py:2(b)", "t.py:3(c)"]),
            (SortKey::Name, ["t.py:1(a)", "t.py:2(b)", "t.py:3(c)"]),
        ] {
            assert_eq!(names(&sorted(key)), order, "{key}");
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        let error = "calls".parse::<SortKey>().unwrap_err().to_string();
        assert!(error.contains("nsamples-cumul, name"), "{error}");
    }

    #[test]
    fn units_suit_each_column() {
        let mut profile = profile(&[("main:1 leaf:2", 3)]);
        let header = |profile: &Profile| table(profile, &PLAIN).lines().nth(1).unwrap().to_owned();
        assert!(header(&profile).contains("tottime (ms)"));
        profile.samples[0].weight_ns = 999_999;
        assert!(header(&profile).contains("cumtime (μs)"));
        assert!(table(&profile, &PLAIN).contains(" 999.999  t.py:2(leaf)"));
    }

    #[test]
    fn limit_cuts_rows() {
        let profile = profile(&[("a:1 b:2 c:3", 1)]);
        let lines = |limit| names(&table(&profile, &Style { limit: Some(limit), ..PLAIN })).len();
        assert_eq!((lines(0), lines(2), lines(9)), (0, 2, 3));
    }

    #[test]
    fn what_is_left_out_is_said() {
        let profile = profile(&[("a:1 b:2", 3), ("a:1 b:3", 4), ("c:9", 1)]);
        let style = Style { limit: Some(1), ..PLAIN };
        let said = |by| table(&profile, &Style { by, ..style.clone() });
        let lines = said(By::Line);
        assert!(
            lines.contains("not shown: 3 more lines with 50.0% of the direct samples"),
            "{lines}"
        );
        let functions = said(By::Function);
        assert!(functions.contains(" 7/7 ") && functions.contains("  t.py:0(b)"), "{functions}");
        assert!(functions.contains("not shown: 2 more functions with 12.5% of"), "{functions}");
        assert!(!table(&profile, &PLAIN).contains("not shown"));
    }

    #[test]
    fn colours_add_nothing_else() {
        let profile = profile(&[("a:1 b:2", 3), ("a:1", 4)]);
        let plain = Style { summary: true, limit: Some(1), ..PLAIN };
        let colored = table(&profile, &Style { is_colored: true, ..plain.clone() });
        assert!(
            colored.contains("\x1b[32mt.py\x1b[0m:\x1b[33m1\x1b[0m(\x1b[36ma\x1b[0m)"),
            "{colored}"
        );
        assert_eq!(without_colours(&colored), table(&profile, &plain));
    }

    #[test]
    fn hostile_names_stay_inert() {
        let mut profile = profile(&[]);
        sample(&mut profile, ThreadId(0), [("/a\x1b]0;x\x07.py", "f\n\x1b[2J", 3)], 1);
        for file in ["/\x1b[2J/x.py", "/\n\\/x.py"] {
            sample(&mut profile, ThreadId(0), [(file, "g", 1)], 1);
        }
        let table = table(&profile, &Style::default());
        assert!(!table.contains(|c: char| c.is_control() && c != '\n'));
        assert!(table.contains(r"a\x1b]0;x\x07.py:3(f\n\x1b[2J)"));
        assert!(table.contains(r" \x1b[2J/x.py:1(g)") && table.contains(r" \n\\/x.py:1(g)"));
    }

    #[test]
    fn files_are_shown_by_names_that_tell_them_apart() {
        let mut profile = profile(&[]);
        for (file, line) in [("/b/x.py", 1), ("/a/x.py", 2), ("/b/y.py", 3), ("/a/x.py", 1)] {
            sample(&mut profile, ThreadId(0), [(file, "f", line)], 1);
        }
        let shown = |limit| table(&profile, &Style { limit: Some(limit), summary: true, ..PLAIN });
        let all = ["a/x.py:1(f)", "a/x.py:2(f)", "b/x.py:1(f)", "y.py:3(f)"];
        assert_eq!(names(&shown(4)), all);
        assert_eq!(names(&shown(2)), ["x.py:1(f)", "x.py:2(f)"], "the other x.py is not shown");
        for name in [" a/x.py(f)\n", " b/x.py(f)\n", " y.py(f)\n"] {
            assert!(shown(2).contains(name), "{}", shown(2));
        }
    }

    #[test]
    fn a_terminal_is_filled_but_not_overrun() {
        let mut profile = profile(&[]);
        let stack =
            [("/a/module.py", "<module>", 10), ("/é/encoder.py", "Class.a_long_method", 263)];
        sample(&mut profile, ThreadId(0), stack, 123_456);
        sample(&mut profile, ThreadId(0), [stack[0]], 2);
        let at = |width| table(&profile, &Style { width, ..Style::default() });
        let uncut = at(None);
        assert!(uncut.lines().any(|line| line.len() > 90), "{uncut}");
        assert_eq!(at(Some(200)), uncut);
        for width in [80, 90, 100] {
            let cut = at(Some(width));
            assert!(cut.lines().all(|line| line.chars().count() <= width), "{cut}");
            assert!(cut.contains("Class.a_long_method)"), "{cut}");
        }
        let narrow = at(Some(80));
        let rows: Vec<&str> = narrow.lines().skip(1).take(2).collect();
        assert_eq!(
            rows,
            [
                "     nsamples sample% tottime (s) cumul% cumtime (s) filename:lineno(function)",
                "123456/123456   100.0     123.456  100.0     123.456 e…:263(Class.a_long_method)",
            ]
        );
    }

    #[test]
    fn wide_numbers_stay_aligned() {
        let profile = profile(&[("a:1 b:2", 12_345_678_901)]);
        let table = table(&profile, &PLAIN);
        let ends = |text| table.lines().map(|line| line.find(text)).find_map(|at| at);
        assert!(table.contains("12345678901/12345678901     100.0  12345678.901"), "{table}");
        assert_eq!(ends("nsamples").map(|at| at + 8), Some(23));
    }

    #[test]
    fn nothing_sampled() {
        assert_eq!(table(&empty(), &PLAIN), "No samples were collected.\n");
    }
}
