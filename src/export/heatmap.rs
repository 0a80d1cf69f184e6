//! Source code with its heat: an index and a page for each file, in a directory or all in one file.
//!
//! The pages hold data, of which `web/heatmap.js` makes what is seen: names and source code are
//! never markup. In one file each page is deflated for itself, and inflated when it is shown.

use super::aggregate::{Groups, Tree};
use super::escape::script_json;
use super::html::pack::deflated;
use super::html::source::{self, Missing};
use super::html::{fill, html_text};
use super::instructions::{self, Instruction};
use super::{base_name, one_line};
use crate::profile::{Frame, Numbers, Opcode, Profile};
use flate2::Compression;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

const PAGE: &str = include_str!("web/heatmap.html");
const ONE_FILE: &str = include_str!("web/heatmap_file.html");
const STYLE: &str = include_str!("web/heatmap.css");
const SCRIPT: &str = include_str!("web/heatmap.js");

/// What the index sorts files into.
const KINDS: [&str; 3] = ["Project", "Standard library", "Site-packages"];
/// Callers or callees that are shown of a line; the rest is counted.
const MOST_CALLS: usize = 50;
/// Characters of its text that are shown of an instruction.
const MOST_TEXT: usize = 80;
/// Bytes of source code that are shown in all: in a directory, and in one file, which a browser
/// reads as a whole.
const MOST_SOURCE: u64 = 256 << 20;
const MOST_IN_FILE: u64 = 32 << 20;
/// The file of frames that are in none.
const NO_FILE: u32 = u32::MAX;

/// Fills an empty directory.
pub fn write(profile: &Profile, directory: &Path) -> io::Result<()> {
    let create =
        |name: &str, content: &[u8]| File::create_new(directory.join(name))?.write_all(content);
    let map = Heatmap::new(profile);
    create("heatmap.css", STYLE.as_bytes())?;
    create("heatmap.js", SCRIPT.as_bytes())?;
    let title = one_line(&profile.meta.program);
    create("index.html", &page(&title, &map.index())?)?;
    let mut unread = MOST_SOURCE;
    for (rank, file) in map.by_heat.iter().enumerate() {
        let title = one_line(map.files.keys[*file as usize]);
        create(&format!("file_{rank:04}.html"), &page(&title, &map.file(*file, &mut unread))?)?;
    }
    Ok(())
}

/// Writes one file that shows the index, and the page or line that its address names.
pub fn write_file(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    write_within(profile, MOST_IN_FILE, out)
}

fn write_within(profile: &Profile, mut unread: u64, out: &mut dyn Write) -> io::Result<()> {
    let map = Heatmap::new(profile);
    let mut index = map.index();
    index["isOneFile"] = true.into();
    fill(ONE_FILE, out, |name, out| match name {
        "title" => out.write_all(html_text(&one_line(&profile.meta.program)).as_bytes()),
        "style" => out.write_all(STYLE.as_bytes()),
        "script" => out.write_all(SCRIPT.as_bytes()),
        "data" => out.write_all(script_json(&index).as_bytes()),
        "pages" => map.by_heat.iter().enumerate().try_for_each(|(rank, file)| {
            let page = serde_json::to_vec(&map.file(*file, &mut unread))?;
            let packed = deflated(&page, Compression::default())?;
            writeln!(out, r#"<script type="text/plain" id="page-{rank}">{packed}</script>"#)
        }),
        _ => Ok(()),
    })
}

fn page(title: &str, data: &Value) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    fill(PAGE, &mut page, |name, out| match name {
        "title" => out.write_all(html_text(title).as_bytes()),
        "data" => out.write_all(script_json(data).as_bytes()),
        _ => Ok(()),
    })?;
    Ok(page)
}

/// Samples with something on top, and with it anywhere.
type Heat = [u64; 2];

/// A line, who it was called by, and what it called, with samples.
struct Line {
    number: u32,
    heat: Heat,
    /// The calling lines.
    callers: Vec<(u32, u64)>,
    /// The called functions.
    callees: Vec<(u32, u64)>,
    /// Where they are known.
    instructions: Vec<(Instruction, Heat)>,
}

struct Heatmap<'a> {
    profile: &'a Profile,
    files: Numbers<&'a str>,
    /// The file of each function.
    file_of: Vec<u32>,
    heat_of_file: Vec<Heat>,
    /// Files, the hottest first; and where each file is there.
    by_heat: Vec<u32>,
    rank: Vec<usize>,
    /// What each group of frames is: its file, its line, and one function there.
    groups: Vec<(u32, u32)>,
    function_of: Vec<u32>,
    lines: Vec<Vec<Line>>,
}

impl<'a> Heatmap<'a> {
    fn new(profile: &'a Profile) -> Self {
        let mut files = Numbers::default();
        let file_of: Vec<u32> = profile
            .functions
            .iter()
            .map(|function| match &*function.file {
                "~" | "<task>" => NO_FILE,
                file => files.of(file),
            })
            .collect();
        let by_file = Groups::new(profile, |frame| file_of[frame.function.0 as usize]);
        let tree = Tree::new(profile, &by_file.of_frame);
        let mut heat_of_file = vec![[0; 2]; files.keys.len()];
        for (file, totals) in by_file.keys.iter().zip(tree.totals(profile, by_file.keys.len())) {
            if let Some(heat) = heat_of_file.get_mut(*file as usize) {
                *heat = [totals.direct.samples, totals.cumulative.samples];
            }
        }
        let mut by_heat: Vec<u32> = (0..files.keys.len() as u32).collect();
        by_heat.retain(|&file| heat_of_file[file as usize][1] > 0);
        by_heat.sort_by_key(|&file| {
            let [own, all] = heat_of_file[file as usize];
            std::cmp::Reverse((all, own))
        });
        let mut rank = vec![usize::MAX; files.keys.len()];
        by_heat.iter().enumerate().for_each(|(place, &file)| rank[file as usize] = place);
        let mut map = Self {
            profile,
            files,
            file_of,
            heat_of_file,
            by_heat,
            rank,
            groups: Vec::new(),
            function_of: Vec::new(),
            lines: Vec::new(),
        };
        map.add_lines();
        map
    }

    fn add_lines(&mut self) {
        let (profile, file_of) = (self.profile, &self.file_of);
        let line = |frame: &Frame| match file_of[frame.function.0 as usize] {
            NO_FILE => (NO_FILE, frame.function.0),
            file => (file, frame.location.line),
        };
        let groups = Groups::new(profile, line);
        self.function_of = vec![0; groups.keys.len()];
        for (frame, &group) in profile.frames.iter().zip(&groups.of_frame).rev() {
            self.function_of[group as usize] = frame.function.0;
        }
        let tree = Tree::new(profile, &groups.of_frame);
        let mut lines: Vec<Line> = groups
            .keys
            .iter()
            .zip(tree.totals(profile, groups.keys.len()))
            .zip(tree.callers(profile, groups.keys.len()))
            .map(|((&(_, number), totals), callers)| Line {
                number,
                heat: [totals.direct.samples, totals.cumulative.samples],
                callers: callers
                    .into_iter()
                    .map(|(caller, totals)| (caller, totals.cumulative.samples))
                    .collect(),
                callees: Vec::new(),
                instructions: Vec::new(),
            })
            .collect();
        let function_of = &self.function_of;
        let calls = tree.calls(profile, |callee, caller| (caller, function_of[callee as usize]));
        for ((caller, function), totals) in calls {
            lines[caller as usize].callees.push((function, totals.cumulative.samples));
        }
        if profile.has_opcodes() {
            let of_line = |frame| (line(frame), Instruction::of(frame));
            let each = Groups::new(profile, of_line);
            let totals = Tree::new(profile, &each.of_frame).totals(profile, each.keys.len());
            let place: HashMap<_, _> = groups.keys.iter().zip(0_usize..).collect();
            for ((line, instruction), totals) in each.keys.iter().zip(totals) {
                let heat = [totals.direct.samples, totals.cumulative.samples];
                let known = instruction.filter(|_| heat[1] > 0).zip(place.get(line));
                if let Some((instruction, &at)) = known {
                    lines[at].instructions.push((instruction, heat));
                }
            }
        }
        self.groups = groups.keys;
        self.lines.resize_with(self.files.keys.len(), Vec::new);
        for (mut line, &(file, _)) in lines.into_iter().zip(&self.groups) {
            let samples = |call: &(u32, u64)| std::cmp::Reverse((call.1, call.0));
            line.callers.sort_by_key(samples);
            line.callees.sort_by_key(samples);
            line.instructions.sort_by_key(|(_, [own, all])| std::cmp::Reverse((*all, *own)));
            if let Some(of_file) = self.lines.get_mut(file as usize)
                && line.heat[1] > 0
            {
                of_file.push(line);
            }
        }
        self.lines.iter_mut().for_each(|lines| lines.sort_by_key(|line| line.number));
    }

    /// What the index shows.
    fn index(&self) -> Value {
        let row = |(page, &file): (usize, &u32)| {
            let (kind, path) = place(self.files.keys[file as usize]);
            let path: Vec<_> = path.iter().map(|part| one_line(part)).collect();
            let [own, all] = self.heat_of_file[file as usize];
            json!({"page": page, "kind": kind, "path": path, "self": own, "total": all})
        };
        let python = self.profile.processes.first().map_or("", |process| &process.python);
        let samples = self.profile.samples.iter().map(|sample| sample.count);
        json!({
            "title": one_line(&self.profile.meta.program),
            "python": one_line(python),
            "samples": samples.fold(0, u64::saturating_add),
            "kinds": KINDS,
            "files": self.by_heat.iter().enumerate().map(row).collect::<Vec<_>>(),
        })
    }

    /// What the page of a file shows.
    fn file(&self, file: u32, unread: &mut u64) -> Value {
        let path = self.files.keys[file as usize];
        let mut others = Numbers::default();
        let source = source::contents(path, self.profile.end_unix_ns(), unread);
        let is_left_out = matches!(source, Err(Missing::TooMuch));
        let source = source.ok();
        let texts: Vec<&str> = source.iter().flat_map(|(text, _)| text.lines()).collect();
        let mut opcodes = Numbers::default();
        let rows: Vec<Value> = self.lines[file as usize]
            .iter()
            .map(|line| {
                let callers = line.callers.iter().map(|&(group, samples)| {
                    let (file, number) = self.groups[group as usize];
                    (file, number, self.function_of[group as usize], samples)
                });
                let callees = line.callees.iter().map(|&(function, samples)| {
                    let first_line = self.profile.functions[function as usize].first_line;
                    (self.file_of[function as usize], first_line, function, samples)
                });
                let [own, all] = line.heat;
                let callers = self.calls(callers, line.callers.len(), &mut others);
                let callees = self.calls(callees, line.callees.len(), &mut others);
                let text = (line.number as usize).checked_sub(1).and_then(|at| texts.get(at));
                let instructions = line.instructions.iter().map(|(instruction, heat)| {
                    self::instruction(instruction, *heat, (line.number, text), &mut opcodes)
                });
                let instructions: Vec<Value> = instructions.collect();
                let mut row = vec![json!(line.number), json!(own), json!(all), callers, callees];
                row.extend((!instructions.is_empty()).then(|| json!(instructions)));
                Value::from(row)
            })
            .collect();
        let [own, all] = self.heat_of_file[file as usize];
        // Tabs are for the page to show.
        let shown = |line: &str| line.split('\t').map(one_line).collect::<Vec<_>>().join("\t");
        let names =
            others.keys.iter().map(|&file| one_line(base_name(self.files.keys[file as usize])));
        json!({
            "title": one_line(path),
            "page": self.rank[file as usize],
            "self": own,
            "total": all,
            "source": source.as_ref().map(|_| texts.iter().map(|line| shown(line)).collect::<Vec<_>>()),
            "isLeftOut": is_left_out,
            "isNewer": source.as_ref().is_some_and(|(_, is_newer)| *is_newer),
            "names": names.collect::<Vec<_>>(),
            "pages": others.keys.iter().map(|&file| self.rank[file as usize]).collect::<Vec<_>>(),
            "opcodes": opcodes.keys.into_iter().map(instructions::opcode).collect::<Vec<_>>(),
            "rows": rows,
        })
    }

    /// Calls as the number of a file among the page's, line, function and samples; and how many
    /// are left out.
    fn calls(
        &self,
        calls: impl Iterator<Item = (u32, u32, u32, u64)>,
        length: usize,
        files: &mut Numbers<u32>,
    ) -> Value {
        let row = |(file, line, function, samples): (u32, u32, u32, u64)| {
            let name = one_line(&self.profile.functions[function as usize].name);
            match file {
                NO_FILE => json!([-1, 0, name, samples]),
                file => json!([files.of(file), line, name, samples]),
            }
        };
        let rows: Vec<Value> = calls.take(MOST_CALLS).map(row).collect();
        json!([rows, length.saturating_sub(MOST_CALLS)])
    }
}

/// An instruction of a line as the number of its opcode among the page's, samples, and where it is: columns
/// from 1, the last line if that is another, and the text.
fn instruction(
    instruction: &Instruction,
    [own, all]: Heat,
    (line, text): (u32, Option<&&str>),
    opcodes: &mut Numbers<Opcode>,
) -> Value {
    let Instruction { opcode, end_line, column, end_column } = *instruction;
    let shown = text.and_then(|text| instruction.text(line, text));
    let shown = shown.map(|(text, goes_on)| {
        let text: String = text.trim_end().chars().take(MOST_TEXT).collect();
        format!("{}{}", one_line(&text), if goes_on { " …" } else { "" })
    });
    let end_line = Some(end_line).filter(|end| *end > line && column > 0);
    json!([opcodes.of(opcode), own, all, column, end_column.saturating_sub(1), end_line, shown])
}

/// Which of [`KINDS`] a file is, and the parts of its path there.
fn place(file: &str) -> (usize, Vec<&str>) {
    let parts: Vec<&str> = file.split('/').filter(|part| !part.is_empty()).collect();
    let after = |is: &dyn Fn(&str) -> bool| {
        let at = parts.iter().rposition(|part| is(part))? + 1;
        (at < parts.len()).then(|| parts[at..].to_vec())
    };
    let is_version = |part: &str| {
        part.strip_prefix("python3.")
            .is_some_and(|minor| minor.starts_with(|c: char| c.is_ascii_digit()))
    };
    if let Some(path) = after(&|part| part == "site-packages" || part == "dist-packages") {
        (2, path)
    } else if let Some(path) = after(&is_version) {
        (1, path)
    } else {
        (
            usize::from(file.starts_with("<frozen ")),
            if parts.is_empty() { vec![file] } else { parts },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::html::pack::tests::inflated;
    use crate::export::testing::{profile, sample, text};
    use crate::profile::ThreadId;
    use std::fs;

    fn script<'a>(page: &'a str, of: &str) -> &'a str {
        let (_, rest) = page.split_once(&format!("<script type=\"{of}\">")).unwrap();
        rest.split_once("</script>").unwrap().0
    }

    fn data(page: &str) -> Value {
        serde_json::from_str(script(page, r#"application/json" id="data"#)).unwrap()
    }

    /// What one file holds of a page.
    fn packed(file: &str, rank: usize) -> Value {
        let packed = script(file, &format!(r#"text/plain" id="page-{rank}"#));
        serde_json::from_slice(&inflated(packed)).unwrap()
    }

    fn pages(profile: &Profile) -> impl Fn(&str) -> String {
        let directory = tempfile::tempdir().unwrap();
        write(profile, directory.path()).unwrap();
        move |name| fs::read_to_string(directory.path().join(name)).unwrap()
    }

    #[test]
    fn lines_have_their_heat_and_calls() {
        let mut profile = profile(&[("main:1 rec:7 rec:7", 5), ("main:2 rec:7", 2), ("main:1", 1)]);
        let python = "/usr/lib/python3.12/json/decoder.py";
        let stack = [("/app/t.py", "main", 1), (python, "decode", 3), ("~", "<GC>", 0)];
        sample(&mut profile, ThreadId(0), stack, 4);
        let read = pages(&profile);
        let index = data(&read("index.html"));
        assert_eq!(index["samples"], 12);
        assert_eq!(
            index["files"],
            json!([
                {"page": 0, "kind": 0, "path": ["app", "t.py"], "self": 8, "total": 12},
                {"page": 1, "kind": 1, "path": ["json", "decoder.py"], "self": 0, "total": 4},
            ])
        );
        let file = data(&read("file_0000.html"));
        assert_eq!((&file["title"], &file["source"]), (&json!("/app/t.py"), &Value::Null));
        assert_eq!(
            file["rows"],
            json!([
                [1, 1, 10, [[], 0], [[[0, 0, "rec", 5], [1, 0, "decode", 4]], 0]],
                [2, 0, 2, [[], 0], [[[0, 0, "rec", 2]], 0]],
                [
                    7,
                    7,
                    7,
                    [[[0, 7, "rec", 5], [0, 1, "main", 5], [0, 2, "main", 2]], 0],
                    [[[0, 0, "rec", 5]], 0],
                ],
            ])
        );
        assert_eq!(
            (&file["names"], &file["pages"]),
            (&json!(["t.py", "decoder.py"]), &json!([0, 1]))
        );
        let library = data(&read("file_0001.html"));
        assert_eq!(library["rows"][0][4], json!([[[-1, 0, "<GC>", 4]], 0]));
    }

    #[test]
    fn one_file_holds_what_a_directory_does() {
        let mut profile = profile(&[("main:1 rec:7 rec:7", 5), ("main:2 rec:7", 2)]);
        sample(&mut profile, ThreadId(0), [("/app/t.py", "main", 1), ("/b.py", "b", 3)], 4);
        let read = pages(&profile);
        let file = text(|out| write_file(&profile, out));
        let mut index = data(&read("index.html"));
        assert_eq!(index["isOneFile"], Value::Null);
        index["isOneFile"] = true.into();
        assert_eq!(data(&file), index);
        for rank in 0..2 {
            assert_eq!(packed(&file, rank), data(&read(&format!("file_{rank:04}.html"))));
        }
        assert!(!file.contains("page-2") && !file.contains("@@"));
        assert!(file.contains(STYLE) && file.contains(SCRIPT));
    }

    #[test]
    fn source_has_its_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let mut profile = profile(&[]);
        for (name, samples) in [("a.py", 3), ("b.py", 2), ("c.py", 1)] {
            let path = directory.path().join(name);
            fs::write(&path, format!("# {name}\n").repeat(if name == "b.py" { 9 } else { 2 }))
                .unwrap();
            sample(&mut profile, ThreadId(0), [(path.to_str().unwrap(), "f", 1)], samples);
        }
        fs::remove_file(directory.path().join("c.py")).unwrap();
        let file = text(|out| write_within(&profile, 20, out));
        let found = [0, 1, 2].map(|rank| packed(&file, rank));
        assert_eq!(found[0]["source"], json!(["# a.py", "# a.py"]));
        assert_eq!([&found[1]["source"], &found[2]["source"]], [&Value::Null; 2]);
        assert_eq!(found.map(|page| page["isLeftOut"] == true), [false, true, false]);
    }

    #[test]
    fn where_files_belong() {
        for (file, kind, path) in [
            ("/home/u/app/main.py", 0, vec!["home", "u", "app", "main.py"]),
            ("/usr/lib/python3.9/os.py", 1, vec!["os.py"]),
            ("<frozen importlib._bootstrap>", 1, vec!["<frozen importlib._bootstrap>"]),
            ("/v/lib/python3.13/site-packages/a/b.py", 2, vec!["a", "b.py"]),
            ("<string>", 0, vec!["<string>"]),
            ("/python3.x/a.py", 0, vec!["python3.x", "a.py"]),
            ("", 0, vec![""]),
        ] {
            assert_eq!(place(file), (kind, path), "{file}");
        }
    }

    #[test]
    fn nothing_in_a_page_is_markup() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("</script><b>.py");
        let source = source.to_str().unwrap().replace("</", "<");
        fs::write(&source, "a = '</script><img src=x>'\n\tb\u{1b}[2J\u{2028}\n").unwrap();
        let mut hostile = profile(&[]);
        let plain = pages(&hostile)("index.html");
        let plain_file = text(|out| write_file(&hostile, out));
        sample(&mut hostile, ThreadId(0), [(source.as_str(), "</script><i>", 1)], 1);
        hostile.meta.program = "</title><script>".into();
        let read = pages(&hostile);
        let elements = |page: &str| page.matches('<').count();
        assert_eq!(elements(&read("index.html")), elements(&plain));
        let page = read("file_0000.html");
        assert_eq!(elements(&page), elements(&plain));
        let lines = json!(["a = '</script><img src=x>'", "\tb\\x1b[2J\\u2028"]);
        assert_eq!(data(&page)["source"], lines);
        let file = text(|out| write_file(&hostile, out));
        // Its page is one element.
        assert_eq!(elements(&file), elements(&plain_file) + 2);
        assert_eq!(packed(&file, 0)["source"], lines);
        for outside in ["http:", "https:", "@import", "url(", "innerHTML"] {
            let all = [PAGE, ONE_FILE, STYLE, SCRIPT];
            assert!(!all.iter().any(|text| text.contains(outside)), "{outside}");
        }
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
    }
}
