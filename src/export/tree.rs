//! The tree for a terminal: the paths that took longest, with the insides of libraries folded.
//!
//! A function that calls one other that is shown stands above it, in the same column; only where paths
//! part does the tree branch. Recursion of a function into itself is one row.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use super::Style;
use super::aggregate::NONE;
use super::escape::escape;
use super::text::{ELLIPSIS, Ink, short_names, unit};
use crate::profile::{Function, Origin, Pattern, Profile};

/// Rows that are shown if no other number is asked for.
const USUAL_ROWS: usize = 40;
/// What takes a smaller share of the time is not shown.
const LEAST_SHARE: f64 = 0.005;
/// A fold that leaves fewer functions than this of at least [`WORTH_SEEING`] of the time hides too much.
const LEAST_FUNCTIONS: usize = 3;
const WORTH_SEEING: f64 = 0.01;
/// Columns of a bar.
const BAR: usize = 10;
/// Columns that a name keeps however deep it is and narrow the terminal.
const LEAST_NAME: usize = 16;

/// Writes the tree. Names are escaped, as they go to a terminal.
pub fn write(profile: &Profile, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let all_ns: u64 = profile.samples.iter().fold(0, |sum, s| sum.saturating_add(s.weight_ns));
    if all_ns == 0 {
        return writeln!(out, "No samples were collected.");
    }
    let paths = Paths::new(profile, &folded(profile, style, all_ns));
    let least_ns = (all_ns as f64 * LEAST_SHARE) as u64;
    let shown = paths.heaviest(style.limit.unwrap_or(USUAL_ROWS), least_ns);
    let ids = shown.iter().flatten().map(|&node| paths.nodes[node as usize].function);
    let files = short_names(ids.map(|id| &*profile.functions[id as usize].file));
    let (unit, unit_ns) = unit(std::iter::once(all_ns));
    let ink = Ink(style.is_colored);
    let mut rows =
        Rows { profile, paths: &paths, shown: &shown, files, all_ns, unit_ns, lines: Vec::new() };
    rows.add_below(0, String::new());
    let title = format!("{:>10}  {:>6}  {:>6}", format!("time ({unit})"), "total", "self");
    writeln!(out, "{}", ink.title(&title))?;
    for line in &rows.lines {
        line.write(style.width, ink, out)?;
    }
    let (calls, ns) = paths.left_out(&shown);
    if calls > 0 {
        let share = 100.0 * ns as f64 / all_ns as f64;
        let plural = if calls == 1 { "" } else { "s" };
        let line = format!("not shown: {calls} more path{plural} with {share:.1}% of the time");
        writeln!(out, "{}", ink.aside(&line))?;
    }
    Ok(())
}

/// Whether each function is folded. Libraries are, unless that hides nearly everything.
fn folded(profile: &Profile, style: &Style, all_ns: u64) -> Vec<bool> {
    let is_one = |patterns: &[Pattern], function: &Function| {
        patterns.iter().any(|pattern| pattern.matches_function(function))
    };
    let times = times(profile);
    let least_ns = (all_ns as f64 * WORTH_SEEING) as u64;
    let is_enough = |libraries: &[Origin]| {
        let functions = profile.functions.iter().zip(&times);
        let seen = functions
            .filter(|(function, ns)| **ns > least_ns && !libraries.contains(&function.origin()));
        seen.count() >= LEAST_FUNCTIONS
    };
    let choices = [&[Origin::Package, Origin::Standard][..], &[Origin::Standard]];
    let libraries = choices.into_iter().find(|libraries| is_enough(libraries)).unwrap_or_default();
    let is_folded = |function: &Function| {
        let is_hidden = libraries.contains(&function.origin()) || is_one(&style.hide, function);
        is_hidden && !is_one(&style.show, function)
    };
    profile.functions.iter().map(is_folded).collect()
}

/// The time that each function was on the stack.
fn times(profile: &Profile) -> Vec<u64> {
    let mut below = vec![0_u64; profile.stacks.len()];
    for sample in &profile.samples {
        let below = &mut below[sample.stack.0 as usize];
        *below = below.saturating_add(sample.weight_ns);
    }
    let mut times = vec![0_u64; profile.functions.len()];
    for (at, stack) in profile.stacks.iter().enumerate().rev() {
        let ns = below[at];
        let function = profile.frame(stack.frame).function;
        let parent = stack.parent.map(|parent| &profile.stacks[parent.0 as usize]);
        if let Some(parent) = stack.parent {
            let below = &mut below[parent.0 as usize];
            *below = below.saturating_add(ns);
        }
        // Only the outermost of a function's frames in a row counts; more would count twice.
        if parent.is_none_or(|parent| profile.frame(parent.frame).function != function) {
            let time = &mut times[function.0 as usize];
            *time = time.saturating_add(ns);
        }
    }
    times
}

/// A function as it was called by what is above it.
struct Node {
    parent: u32,
    function: u32,
    /// Time on top of the stack, folded functions included.
    own_ns: u64,
    total_ns: u64,
    folded: HashSet<u32>,
}

/// The stacks without what is folded, merged. Node 0 is above all.
struct Paths {
    nodes: Vec<Node>,
}

/// Where a stack is in the tree.
#[derive(Clone, Copy)]
struct Place {
    node: u32,
    /// Whether there is nothing but folded functions from the root on.
    is_outside: bool,
    /// Whether the top function is folded.
    is_folded: bool,
}

impl Paths {
    /// Of what is folded, the function that is called by one which is not is shown for all that it
    /// calls. Below the root there is none such: what is folded there is left out, or if there is
    /// nothing else, shown by its top function.
    fn new(profile: &Profile, folded: &[bool]) -> Self {
        let root =
            Node { parent: 0, function: NONE, own_ns: 0, total_ns: 0, folded: HashSet::new() };
        let mut paths = Self { nodes: vec![root] };
        let mut children: HashMap<(u32, u32), u32> = HashMap::new();
        let mut child = |paths: &mut Self, parent: u32, function: u32| {
            if paths.nodes[parent as usize].function == function {
                return parent;
            }
            *children.entry((parent, function)).or_insert_with(|| {
                let folded = HashSet::new();
                paths.nodes.push(Node { parent, function, own_ns: 0, total_ns: 0, folded });
                paths.nodes.len() as u32 - 1
            })
        };
        let mut places: Vec<Place> = Vec::with_capacity(profile.stacks.len());
        for stack in &profile.stacks {
            let function = profile.frame(stack.frame).function.0;
            let is_folded = folded[function as usize];
            let above = stack
                .parent
                .map_or(Place { node: 0, is_outside: true, is_folded: true }, |parent| {
                    places[parent.0 as usize]
                });
            let node = match above {
                _ if !is_folded => child(&mut paths, above.node, function),
                Place { is_folded: false, .. } => child(&mut paths, above.node, function),
                Place { is_outside: true, .. } => 0,
                Place { node, .. } => {
                    if paths.nodes[node as usize].function != function {
                        paths.nodes[node as usize].folded.insert(function);
                    }
                    node
                }
            };
            places.push(Place { node, is_folded, is_outside: above.is_outside && is_folded });
        }
        for sample in &profile.samples {
            let place = places[sample.stack.0 as usize];
            let frame = profile.stacks[sample.stack.0 as usize].frame;
            let node = match place.is_outside {
                true => child(&mut paths, 0, profile.frame(frame).function.0),
                false => place.node,
            };
            let node = &mut paths.nodes[node as usize];
            node.own_ns = node.own_ns.saturating_add(sample.weight_ns);
        }
        for at in (0..paths.nodes.len()).rev() {
            let node = &mut paths.nodes[at];
            node.total_ns = node.total_ns.saturating_add(node.own_ns);
            let (parent, total_ns) = (node.parent as usize, node.total_ns);
            if at > 0 {
                let parent = &mut paths.nodes[parent];
                parent.total_ns = parent.total_ns.saturating_add(total_ns);
            }
        }
        paths
    }

    /// The heaviest nodes, as many as there may be, as the children of each node by weight.
    fn heaviest(&self, rows: usize, least_ns: u64) -> Vec<Vec<u32>> {
        let mut order: Vec<u32> = (1..self.nodes.len() as u32).collect();
        let total = |node: &u32| self.nodes[*node as usize].total_ns;
        order.retain(|node| total(node) > least_ns);
        // A caller weighs no less than what it calls and has the smaller number, so it comes first.
        order.sort_by(|a, b| total(b).cmp(&total(a)).then(a.cmp(b)));
        order.truncate(rows);
        let mut shown = vec![Vec::new(); self.nodes.len()];
        for node in order {
            shown[self.nodes[node as usize].parent as usize].push(node);
        }
        shown
    }

    /// How many calls of what is shown are not, and their time.
    fn left_out(&self, shown: &[Vec<u32>]) -> (usize, u64) {
        let mut is_shown = vec![false; self.nodes.len()];
        is_shown[0] = true;
        shown.iter().flatten().for_each(|&node| is_shown[node as usize] = true);
        let left_out = self.nodes.iter().enumerate().filter(|(at, node)| {
            !is_shown[*at] && is_shown[node.parent as usize] && node.total_ns > 0
        });
        left_out
            .fold((0, 0), |(calls, ns), (_, node)| (calls + 1, ns.saturating_add(node.total_ns)))
    }
}

/// Puts the shown nodes in lines.
struct Rows<'a> {
    profile: &'a Profile,
    paths: &'a Paths,
    shown: &'a [Vec<u32>],
    files: HashMap<&'a str, &'a str>,
    all_ns: u64,
    unit_ns: f64,
    lines: Vec<Line>,
}

impl Rows<'_> {
    /// Adds what a node calls. `guides` is what stands before everything in its column.
    fn add_below(&mut self, node: u32, guides: String) {
        // Stacks can be deeper than what may be called here.
        let mut open = vec![(node, guides)];
        while let Some((node, guides)) = open.pop() {
            if node != 0 {
                self.add(node, &guides);
            }
            let guides = guides.replace("├ ", "│ ").replace("└ ", "  ");
            let children = &self.shown[node as usize];
            for (index, &child) in children.iter().enumerate().rev() {
                let branch = match children.len() {
                    1 => "",
                    many if index + 1 == many => "└ ",
                    _ => "├ ",
                };
                open.push((child, guides.clone() + branch));
            }
        }
    }

    fn add(&mut self, node: u32, guides: &str) {
        let node = &self.paths.nodes[node as usize];
        let function = &self.profile.functions[node.function as usize];
        let file = escape(self.files.get(&*function.file).unwrap_or(&""), None).into_owned();
        let share = |ns: u64| ns as f64 / self.all_ns as f64;
        self.lines.push(Line {
            time: format!("{:>10.3}", node.total_ns as f64 / self.unit_ns),
            total: share(node.total_ns),
            own: share(node.own_ns),
            guides: guides.to_owned(),
            name: escape(&function.name, None).into_owned(),
            place: match function.first_line {
                0 => file,
                line => format!("{file}:{line}"),
            },
            folded: match node.folded.len() {
                0 => String::new(),
                1 => format!("{ELLIPSIS}1 function"),
                many => format!("{ELLIPSIS}{many} functions"),
            },
        });
    }
}

struct Line {
    time: String,
    total: f64,
    own: f64,
    guides: String,
    name: String,
    place: String,
    folded: String,
}

impl Line {
    /// Where there is too little room, what is folded goes first, then the place; then the name is
    /// cut, and of the guides only the last are left.
    fn write(&self, columns: Option<usize>, ink: Ink, out: &mut dyn Write) -> io::Result<()> {
        let total = format!("{:>5.1}%", 100.0 * self.total);
        let own = if self.own == 0.0 { String::new() } else { format!("{:.1}%", 100.0 * self.own) };
        let numbers = format!(
            "{}  {}  {own:>6}  {}  ",
            self.time,
            ink.share(self.total, &total),
            ink.share(self.total, &bar(self.total))
        );
        let taken = 10 + 2 + 6 + 2 + 6 + 2 + BAR + 2;
        let mut room =
            columns.map_or(usize::MAX, |columns| columns.saturating_sub(taken).max(LEAST_NAME));
        let mut guides = self.guides.clone();
        let width = |text: &str| text.chars().count();
        let for_guides = room.saturating_sub(width(&self.name).min(LEAST_NAME));
        if width(&guides) > for_guides {
            let kept = for_guides.saturating_sub(1);
            let skipped = width(&guides) - kept;
            guides = ELLIPSIS.to_owned() + &guides.chars().skip(skipped).collect::<String>();
        }
        room = room.saturating_sub(width(&guides));
        let mut name = self.name.clone();
        if width(&name) > room {
            let too_many = width(&name) - room + 1;
            name = ELLIPSIS.to_owned() + &name.chars().skip(too_many).collect::<String>();
        }
        room = room.saturating_sub(width(&name));
        let mut line = format!("{numbers}{}{}", ink.aside(&guides), ink.name(&name));
        for (text, is_place) in [(&self.place, true), (&self.folded, false)] {
            let Some(left) = room.checked_sub(width(text) + 2).filter(|_| !text.is_empty()) else {
                continue;
            };
            room = left;
            line += "  ";
            line += &if is_place { ink.file(text) } else { ink.aside(text) };
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// A bar of eighths of columns.
fn bar(share: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share * (8 * BAR) as f64).round().clamp(1.0, (8 * BAR) as f64) as usize;
    let bar = "█".repeat(eighths / 8) + PARTS[eighths % 8];
    format!("{bar:<BAR$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{empty, profile, sample, text};
    use crate::profile::ThreadId;

    fn tree(profile: &Profile, style: &Style) -> String {
        text(|out| write(profile, style, out))
    }

    /// The columns of functions, without the numbers.
    fn functions(tree: &str) -> Vec<String> {
        let rows = tree.lines().skip(1).filter(|line| !line.starts_with("not shown"));
        rows.map(|line| line.chars().skip(40).collect::<String>().trim_end().to_owned()).collect()
    }

    const JSON: &str = "/usr/lib/python3.12/json/encoder.py";
    const SITE: &str = "/v/lib/python3.12/site-packages/web/app.py";

    fn with_libraries() -> Profile {
        let mut profile = empty();
        let main = ("/a/app.py", "<module>", 1);
        let [serve, handle, dump] =
            [("/a/app.py", "serve", 2), ("/a/app.py", "handle", 3), ("/a/app.py", "dump", 4)];
        let [run, call] = [(SITE, "App.run", 1), (SITE, "App.call", 2)];
        let [encode, iterate] = [(JSON, "encode", 9), (JSON, "iterate", 8)];
        let runpy = ("<frozen runpy>", "_run_code", 88);
        for (count, frames) in [
            (10, &[runpy, main, serve, run, call, handle, dump, encode, iterate][..]),
            (5, &[runpy, main, serve, run, call, handle]),
            (3, &[runpy, main, serve, run, call]),
            (2, &[runpy, main, dump, encode]),
            (4, &[("<frozen importlib._bootstrap>", "_find", 1), (JSON, "<module>", 1)]),
        ] {
            sample(&mut profile, ThreadId(0), frames.iter().copied(), count);
        }
        profile
    }

    #[test]
    fn libraries_are_folded_into_what_is_called_of_them() {
        let shown = tree(&with_libraries(), &Style::default());
        assert_eq!(
            functions(&shown),
            [
                "├ <module>  a/app.py",
                "│ ├ serve  a/app.py",
                "│ │ App.run  web/app.py  …1 function",
                "│ │ handle  a/app.py",
                "│ │ dump  a/app.py",
                "│ │ encode  encoder.py  …1 function",
                "│ └ dump  a/app.py",
                "│   encode  encoder.py",
                "└ <module>  encoder.py",
            ],
            "{shown}"
        );
        assert!(shown.contains("    18.000   75.0%   12.5%  ███████▌    │ │ App.run"), "{shown}");
        assert!(!shown.contains("not shown"));
    }

    #[test]
    fn what_is_folded_can_be_chosen() {
        let with = |hide: &[&str], show: &[&str]| {
            let patterns =
                |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            let style = Style { hide: patterns(hide), show: patterns(show), ..Style::default() };
            functions(&tree(&with_libraries(), &style)).join("\n")
        };
        let everything = with(&[], &["*"]);
        for name in ["_run_code  <frozen runpy>", "App.call", "iterate", "_find"] {
            assert!(everything.contains(name), "{everything}");
        }
        assert!(!everything.contains('…'), "{everything}");
        let web = with(&[], &["*/web/*"]);
        assert!(web.contains("App.call") && !web.contains("iterate"), "{web}");
        let handled = with(&["serve", "<module>"], &[]);
        assert!(!handled.contains("serve") && handled.contains("├ handle"), "{handled}");
        let neither = with(&["iter*"], &["iterate"]);
        assert!(neither.contains("iterate"), "what is to be shown is never folded: {neither}");
    }

    #[test]
    fn a_program_that_is_all_library_is_not_folded_away() {
        let mut profile = empty();
        let frames = [("/v/bin/web", "<module>", 1), (SITE, "main", 1), (SITE, "App.run", 2)];
        sample(&mut profile, ThreadId(0), frames.into_iter().chain([(JSON, "encode", 1)]), 3);
        sample(&mut profile, ThreadId(0), frames.into_iter().chain([(JSON, "decode", 1)]), 1);
        let expected = ["<module>  web", "main  app.py", "App.run  app.py"];
        let shown = functions(&tree(&profile, &Style::default()));
        assert_eq!(shown[..3], expected);
        assert_eq!(shown[3..], ["├ encode  encoder.py", "└ decode  encoder.py"]);
    }

    #[test]
    fn recursion_is_one_row_and_depth_is_no_limit() {
        let deep = ["f:1 g:2"; 3000].join(" ");
        let profile = profile(&[("main:1 rec:7 rec:8 rec:7 leaf:4", 5), (&deep, 5)]);
        let shown = tree(&profile, &Style { limit: Some(6), ..Style::default() });
        let expected =
            ["├ main  t.py", "│ rec  t.py", "│ leaf  t.py", "└ f  t.py", "  g  t.py", "  f  t.py"];
        assert_eq!(functions(&shown), expected);
        assert!(shown.ends_with("not shown: 1 more path with 50.0% of the time\n"), "{shown}");
    }

    #[test]
    fn the_heaviest_rows_are_shown_and_the_rest_is_summed_up() {
        let profile = profile(&[("a:1 b:2", 600), ("a:1 c:3", 300), ("a:1 d:4", 99), ("e:5", 1)]);
        let shown = tree(&profile, &Style::default());
        assert_eq!(functions(&shown), ["a  t.py", "├ b  t.py", "├ c  t.py", "└ d  t.py"]);
        assert!(shown.ends_with("not shown: 1 more path with 0.1% of the time\n"), "{shown}");
        let two = tree(&profile, &Style { limit: Some(2), ..Style::default() });
        assert_eq!(functions(&two), ["a  t.py", "b  t.py"]);
        assert!(two.ends_with("not shown: 3 more paths with 40.0% of the time\n"), "{two}");
        assert_eq!(tree(&empty(), &Style::default()), "No samples were collected.\n");
    }

    #[test]
    fn a_terminal_is_filled_but_not_overrun() {
        let mut path = String::new();
        let mut stacks = Vec::new();
        for level in 0..30 {
            path += &format!("a_function_with_a_long_name_{level}:{level} ");
            stacks.extend([(path.clone(), 10), (format!("{path} other:1"), 10)]);
        }
        let stacks: Vec<_> = stacks.iter().map(|(path, count)| (path.as_str(), *count)).collect();
        let profile = profile(&stacks);
        let at = |width| tree(&profile, &Style { width, limit: Some(99), ..Style::default() });
        let uncut = at(None);
        assert!(uncut.lines().any(|line| line.chars().count() > 120), "{uncut}");
        for columns in [57, 80, 100] {
            let cut = at(Some(columns));
            for line in cut.lines().filter(|line| !line.starts_with("not shown")) {
                assert!(line.chars().count() <= columns, "{line}");
            }
            assert!(cut.contains("_name_29"), "{cut}");
        }
    }

    #[test]
    fn hostile_names_stay_inert() {
        let mut profile = profile(&[]);
        sample(&mut profile, ThreadId(0), [("/a\x1b]0;x\x07.py", "f\n\x1b[2J", 3)], 1);
        let shown = tree(&profile, &Style::default());
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'));
        assert!(shown.contains(r"f\n\x1b[2J  a\x1b]0;x\x07.py"), "{shown}");
    }

    #[test]
    fn colours_add_nothing_else() {
        let plain = tree(&with_libraries(), &Style::default());
        let colored = tree(&with_libraries(), &Style { is_colored: true, ..Style::default() });
        assert!(colored.contains("\x1b[36mserve\x1b[0m"), "{colored}");
        assert_eq!(crate::export::testing::without_colours(&colored), plain);
    }

    #[test]
    fn bars_have_eighths() {
        assert_eq!(
            [bar(1.0), bar(0.5), bar(0.0)].map(|bar| bar.trim_end().to_owned()),
            ["██████████", "█████", "▏"]
        );
        assert_eq!(bar(0.27).chars().count(), BAR);
    }
}
