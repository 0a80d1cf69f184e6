//! Collapsed stacks: a line of text for each thread and stack, which most flame graph tools read.
//!
//! ```text
//! tid:15563;app.py:<module>:22;app.py:work:11;<GC> 102
//! ```
//!
//! Root first; each part is the file's base name, the function and the line; synthetic frames are bare.
//! Names are escaped as in a Python string literal where they hold a semicolon, a backslash, or a control
//! or format character such as a line break: `a;b` is `a\x3bb`. The most frequent stacks come first.

use super::aggregate::{Row, Tree, by_line};
use super::base_name;
use super::escape::escape;
use crate::profile::{Numbers, Profile};
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::io::{self, Write};

/// Writes the lines.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = Lines::new(profile);
    lines.lines.sort_by_key(|line| (Reverse(line.count), line.rank));
    let mut text = String::new();
    for line in &lines.lines {
        text.clear();
        lines.push_stack(line, &mut text);
        writeln!(out, "{text} {}", line.count)?;
    }
    Ok(())
}

/// One line: how often one thread was seen in one stack.
pub(super) struct Line {
    /// Samples.
    pub count: u64,
    /// Where the stack's text is among those of all lines in order.
    pub rank: (usize, u32),
    tid: u32,
    node: u32,
}

/// The lines, with their texts as a tree, as the texts themselves can be far larger than the profile.
pub(super) struct Lines {
    /// The lines, in no order.
    pub lines: Vec<Line>,
    labels: Vec<String>,
    tree: Tree,
}

impl Lines {
    /// The lines of a profile.
    pub fn new(profile: &Profile) -> Self {
        let groups = by_line(profile);
        let mut numbers = Numbers::default();
        let texts: Vec<String> = groups.keys.iter().map(label).collect();
        // Files of the same name in different folders look the same here.
        let label_of: Vec<u32> = texts.iter().map(|text| numbers.of(text.as_str())).collect();
        let labels: Vec<String> = numbers.keys.iter().map(|&text| text.to_owned()).collect();
        let of_frame: Vec<u32> =
            groups.of_frame.iter().map(|&group| label_of[group as usize]).collect();
        let tree = Tree::new(profile, &of_frame);
        let rank = ranks(&tree, &labels);

        let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
        for sample in profile.samples.iter().filter(|sample| sample.count > 0) {
            let key = (profile.thread(sample.thread).tid, tree.of_stack[sample.stack.0 as usize]);
            let count = counts.entry(key).or_default();
            *count = count.saturating_add(sample.count);
        }
        let mut tids: Vec<u32> = counts.keys().map(|(tid, _)| *tid).collect();
        tids.sort_by_cached_key(|tid| format!("{tid};"));
        tids.dedup();
        let tid_rank: HashMap<u32, usize> = tids.into_iter().zip(0..).collect();
        let lines = counts
            .into_iter()
            .map(|((tid, node), count)| Line {
                count,
                rank: (tid_rank[&tid], rank[node as usize]),
                tid,
                node,
            })
            .collect();
        Lines { lines, labels, tree }
    }

    /// Appends a line's text, all but its count.
    pub fn push_stack(&self, line: &Line, text: &mut String) {
        let mut parts = Vec::new();
        let mut node = line.node as usize;
        while node != 0 {
            parts.push(self.labels[self.tree.group[node] as usize].as_str());
            node = self.tree.parent[node] as usize;
        }
        text.push_str("tid:");
        text.push_str(&line.tid.to_string());
        for part in parts.into_iter().rev() {
            text.push(';');
            text.push_str(part);
        }
    }
}

/// A frame's part of a line. It ends in a line number or `>`, so that no reader takes an end of it for a count.
fn label(row: &Row<'_>) -> String {
    let name = escape(row.name, Some(';'));
    if row.file == "~" && row.line == 0 && name.starts_with('<') && name.ends_with('>') {
        return name.into_owned();
    }
    format!("{}:{name}:{}", escape(base_name(row.file), Some(';')), row.line)
}

/// The same for a function, without a line. It ends in a character that is no part of a count.
pub(super) fn function_label(row: &Row<'_>) -> String {
    let name = escape(row.name, Some(';'));
    match row.file {
        "~" => name.into_owned(),
        file => format!("{}:{name}()", escape(base_name(file), Some(';'))),
    }
}

/// Where each node's text is in the order of all texts, found by walking the tree instead of comparing
/// whole texts. A text that ends at a part sorts by the part, one that goes on sorts by the part and `;`.
fn ranks(tree: &Tree, labels: &[String]) -> Vec<u32> {
    let mut children = tree.children();
    let mut rank = vec![0; tree.parent.len()];
    let mut next = 0;
    let mut steps = vec![(0, true)];
    while let Some((node, goes_on)) = steps.pop() {
        if !goes_on {
            rank[node as usize] = next;
            next += 1;
            continue;
        }
        let first = steps.len();
        for child in std::mem::take(&mut children[node as usize]) {
            steps.push((child, false));
            if !children[child as usize].is_empty() {
                steps.push((child, true));
            }
        }
        let label = |node: u32| labels[tree.group[node as usize] as usize].as_str();
        // Steps are taken from the end.
        steps[first..].sort_by(|&(a, a_on), &(b, b_on)| compare(label(b), b_on, label(a), a_on));
    }
    rank
}

fn compare(a: &str, a_goes_on: bool, b: &str, b_goes_on: bool) -> Ordering {
    let end = |goes_on: bool| goes_on.then_some(b';');
    a.bytes().chain(end(a_goes_on)).cmp(b.bytes().chain(end(b_goes_on)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, empty, profile, sample, text};
    use crate::profile::ThreadId;
    use proptest::prelude::*;

    fn collapsed(profile: &Profile) -> String {
        text(|out| write(profile, out))
    }

    #[test]
    fn golden() {
        let mut profile = profile(&[("<module>:22 work:11", 102), ("<module>:22", 7)]);
        sample(
            &mut profile,
            ThreadId(0),
            [("/app/t.py", "<module>", 22), ("~", "<native>", 0), ("<frozen runpy>", "_run", 3)],
            7,
        );
        sample(&mut profile, ThreadId(0), [("/app/t.py", "<module>", 22), ("~", "<GC>", 0)], 8);
        add(&mut profile, 7, &[("<module>:22 work:11", 102)]);
        assert_eq!(
            collapsed(&profile),
            "tid:42;t.py:<module>:22;t.py:work:11 102\n\
             tid:7;t.py:<module>:22;t.py:work:11 102\n\
             tid:42;t.py:<module>:22;<GC> 8\n\
             tid:42;t.py:<module>:22 7\n\
             tid:42;t.py:<module>:22;<native>;<frozen runpy>:_run:3 7\n"
        );
    }

    #[test]
    fn lines_that_look_the_same_are_one() {
        let mut profile = profile(&[]);
        for file in ["/a/x.py", "/b/x.py"] {
            sample(&mut profile, ThreadId(0), [(file, "f", 1), (file, "g", 2)], 2);
        }
        add(&mut profile, 42, &[]);
        sample(&mut profile, ThreadId(1), [("/a/x.py", "f", 1), ("/b/x.py", "g", 2)], 3);
        assert_eq!(collapsed(&profile), "tid:42;x.py:f:1;x.py:g:2 7\n");
    }

    #[test]
    fn hostile_names_stay_in_their_part() {
        let mut profile = profile(&[]);
        sample(&mut profile, ThreadId(0), [("/d;/a;b.py", "f\n9;\\", 1), ("~", "<x> 12", 0)], 1);
        assert_eq!(collapsed(&profile), "tid:42;a\\x3bb.py:f\\n9\\x3b\\\\:1;~:<x> 12:0 1\n");
    }

    #[test]
    fn nothing_sampled() {
        assert_eq!(collapsed(&empty()), "");
    }

    #[test]
    fn deep_stacks() {
        let mut profile = profile(&[]);
        let frames: Vec<_> = (0..100_000).map(|_| ("t.py", "rec", 3)).collect();
        sample(&mut profile, ThreadId(0), frames[..2_000].iter().copied(), 1);
        assert_eq!(collapsed(&profile).matches(';').count(), 2_000);
    }

    proptest! {
        #[test]
        fn sorted_by_count_and_text(
            stacks in prop::collection::vec((prop::collection::vec("[a!; \\u{e9}]{0,3}", 1..5), 1..3_u64), 0..40),
        ) {
            let mut profile = profile(&[]);
            for (names, count) in &stacks {
                sample(&mut profile, ThreadId(0), names.iter().map(|name| ("", name.as_str(), 0)), *count);
            }
            let text = collapsed(&profile);
            let lines: Vec<(Reverse<u64>, &str)> = text
                .lines()
                .map(|line| line.rsplit_once(' ').unwrap())
                .map(|(stack, count)| (Reverse(count.parse().unwrap()), stack))
                .collect();
            prop_assert!(lines.is_sorted(), "{}", text);
            let counted: u64 = lines.iter().map(|(count, _)| count.0).sum();
            prop_assert_eq!(counted, stacks.iter().map(|(_, count)| count).sum::<u64>());
        }
    }
}
