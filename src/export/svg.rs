//! The flame graph as an SVG image, drawn by inferno from the collapsed stacks.

use super::collapsed::Lines;
use super::diff::folded;
use super::escape::escape;
use crate::profile::Profile;
use inferno::flamegraph::{Direction, Options, from_lines};
use std::io::{self, Write};

/// Shown for a profile without samples, which inferno takes for an error.
const EMPTY: &str = r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="80" viewBox="0 0 1200 80" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="100%" fill="#f8f8f8"/>
<text x="600" y="46" text-anchor="middle" font-family="sans-serif" font-size="17">No samples were collected.</text>
</svg>
"##;

/// Writes the image.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = Lines::new(profile);
    if lines.lines.iter().all(|line| line.count == 0) {
        return out.write_all(EMPTY.as_bytes());
    }
    // Inferno orders whole lines but then checks the order of stacks, which differ for some names.
    lines.lines.sort_by_key(|line| line.rank);
    let mut text = String::new();
    let mut ends = Vec::with_capacity(lines.lines.len());
    for line in &lines.lines {
        lines.push_stack(line, &mut text);
        text.push(' ');
        text.push_str(&line.count.to_string());
        ends.push(text.len());
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let texts = starts.zip(&ends).map(|(start, &end)| &text[start..end]);

    from_lines(&mut options(&profile.meta.program, "samples"), texts, out)
}

/// Writes an image of the second profile in which what takes longer than in the first is red and what takes less
/// is blue.
pub fn write_difference(
    before: &Profile,
    after: &Profile,
    is_absolute: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let lines = folded(before, after, is_absolute);
    // What the second has of it comes last.
    if lines.iter().all(|line| line.ends_with(" 0")) {
        return out.write_all(EMPTY.as_bytes());
    }
    let title = format!("{} against {}", after.meta.program, before.meta.program);
    from_lines(&mut options(&title, "µs"), lines.iter().map(String::as_str), out)
}

fn options(title: &str, unit: &str) -> Options<'static> {
    let mut options = Options::default();
    options.title = escape(title, None).into_owned();
    options.count_name = unit.to_owned();
    // As on the page; and a deep image opens where the wide boxes are.
    options.direction = Direction::Inverted;
    options.deterministic = true;
    options.no_sort = true;
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, empty, profile, sample, text};
    use crate::profile::ThreadId;

    fn svg(profile: &Profile) -> String {
        text(|out| write(profile, out))
    }

    #[test]
    fn boxes_have_their_samples() {
        let mut profile = profile(&[("main:1 f:2", 30), ("main:1 g:3", 10)]);
        add(&mut profile, 7, &[("main:1", 60)]);
        let svg = svg(&profile);
        assert!(svg.contains("<title>t.py:f:2 (30 samples, 30.00%)</title>"), "{svg}");
        assert!(svg.contains("<title>tid:7 (60 samples, 60.00%)</title>"));
        assert!(svg.contains(">t.py</text>"));
        assert_eq!(svg, self::svg(&profile));
    }

    #[test]
    fn hostile_names_stay_text() {
        let mut profile = profile(&[("main:1 f:1", 5)]);
        profile.meta.program = "</text><script>\x1b".into();
        for name in ["f:1 !x", "<script>alert(1)</script>", "\u{ffff}]]>&\x00", "f 7"] {
            let frames = [("/app/t.py", "main", 1), ("/app/t.py", name, 3)];
            sample(&mut profile, ThreadId(0), frames, 5);
        }
        let svg = svg(&profile);
        assert!(!svg.contains("<script>"), "{svg}");
        assert!(!svg.contains(|c: char| c == '\u{ffff}' || c.is_control() && !c.is_whitespace()));
        assert!(svg.contains("t.py:f 7:3 (5 samples, 20.00%)"));
        assert!(svg.contains("t.py:main:1 (25 samples, 100.00%)"));
    }

    #[test]
    fn nothing_sampled() {
        assert!(svg(&empty()).ends_with("</svg>\n"));
    }

    #[test]
    fn differences_without_time() {
        let before = profile(&[("main:1 f:2", 30)]);
        let mut after = before.clone();
        after.samples.iter_mut().for_each(|sample| sample.weight_ns = 0);
        for after in [after, empty()] {
            let svg = text(|out| write_difference(&before, &after, true, out));
            assert!(svg.contains("No samples"), "{svg}");
        }
        assert!(text(|out| write_difference(&before, &before, false, out)).contains("t.py:f"));
    }
}
