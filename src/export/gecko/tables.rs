//! The tables that all threads share: strings, functions, frames and stacks.
//!
//! The format gives a category to frames and none to samples. So where a thread was not simply
//! running its top frame (it was idle, say), the sample's stack ends in a frame of its own, which
//! is the same but for the category.

use super::json::{Cell, Json};
use super::markers;
use super::opcodes::Opcodes;
use crate::export::aggregate::{Groups, Tree};
use crate::export::one_line;
use crate::profile::{Function, Numbers, Profile, State};
use serde_json::{Value, json};
use std::io;
use std::iter::repeat_n;

/// What a frame is shown as; its number is that in [`CATEGORIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Category {
    Other,
    Idle,
    Python,
    Native,
    Gc,
    Gil,
    Cpu,
    Exception,
    Opcodes,
}

/// Names and colours. A viewer takes the first grey one for what has no category, and knows idle
/// time by its name.
const CATEGORIES: [(&str, &str); 9] = [
    ("Other", "grey"),
    ("Idle", "transparent"),
    ("Python", "yellow"),
    ("Native", "blue"),
    ("GC", "orange"),
    ("GIL", "green"),
    ("CPU", "purple"),
    ("Exception", "red"),
    ("Opcodes", "magenta"),
];

/// Tables that are of use to machine code only.
const NO_ROWS: &str = r#","resourceTable":{"type":[],"lib":[],"name":[],"host":[],"length":0},
"nativeSymbols":{"libIndex":[],"address":[],"name":[],"functionSize":[],"length":0}"#;

impl Category {
    /// What the metadata says of all of them; the last is of use only if there are opcodes.
    pub fn all(has_opcodes: bool) -> Value {
        let row = |&(name, color): &(&str, &str)| json!({"name": name, "color": color, "subcategories": ["Other"]});
        CATEGORIES[..CATEGORIES.len() - usize::from(!has_opcodes)].iter().map(row).collect()
    }

    fn of_function(function: &Function) -> Self {
        match (&*function.file, &*function.name) {
            ("~", "<GC>") => Self::Gc,
            ("~", "<native>") => Self::Native,
            ("~", name) if !name.starts_with('<') => Self::Native,
            ("~" | "<task>", _) => Self::Other,
            _ => Self::Python,
        }
    }

    /// That of a sample whose top frame has this one.
    fn in_state(self, state: State) -> Self {
        let is_any = |states: [State; 3]| states.into_iter().any(|one| state.has(one));
        if state.has(State::WAITS_FOR_GIL) {
            Self::Gil
        } else if !is_any([State::ON_CPU, State::HAS_GIL, State::IN_GC]) {
            Self::Idle
        } else if state.has(State::IN_GC) {
            Self::Gc
        } else if self == Self::Python && state.has(State::IN_NATIVE) {
            Self::Native
        } else {
            self
        }
    }

    /// As the tables have it.
    pub fn cell(self) -> Cell<'static> {
        Cell::Number(self as u64)
    }
}

/// What is known of a function besides what the profile says.
struct FunctionRow {
    category: Category,
    /// Its name's number in `strings`.
    name: u32,
    /// Its file's number in `sources`.
    source: Option<u32>,
}

/// The tables of a profile.
pub(super) struct Tables<'a> {
    profile: &'a Profile,
    strings: Numbers<&'a str>,
    /// The names of source files, by their numbers in `strings`.
    sources: Numbers<u32>,
    functions: Vec<FunctionRow>,
    /// Frames as function, line and column.
    groups: Groups<(u32, u32, u32)>,
    tree: Tree,
    /// Frames with another category than their function's, behind the groups.
    frames: Numbers<(u32, Category)>,
    /// Nodes that end in such a frame, behind the tree's.
    stacks: Numbers<(u32, u32)>,
    /// The stack of each sample of the profile.
    pub stack_of: Vec<u32>,
    /// The instructions that samples were at.
    pub opcodes: Opcodes,
}

impl<'a> Tables<'a> {
    pub fn new(profile: &'a Profile) -> Self {
        let mut strings = Numbers::default();
        // Markers refer to their names by these numbers.
        for name in markers::NAMES {
            strings.of(name);
        }
        let opcodes = Opcodes::new(profile, |name| strings.of(name));
        let groups = Groups::new(profile, |frame| {
            (frame.function.0, frame.location.line, frame.location.column)
        });
        let tree = Tree::new(profile, &groups.of_frame);
        let mut sources = Numbers::default();
        let functions = profile.functions.iter().map(|function| {
            let category = Category::of_function(function);
            let name = strings.of(&*function.name);
            let is_python = category == Category::Python;
            let source = is_python.then(|| sources.of(strings.of(&*function.file)));
            FunctionRow { category, name, source }
        });
        let functions = functions.collect();
        let mut tables = Self {
            profile,
            strings,
            sources,
            functions,
            groups,
            tree,
            frames: Numbers::default(),
            stacks: Numbers::default(),
            stack_of: Vec::with_capacity(profile.samples.len()),
            opcodes,
        };
        for sample in &profile.samples {
            let stack = tables.stack(sample.stack.0, sample.state);
            tables.stack_of.push(stack);
        }
        tables
    }

    /// The stack of samples in a state.
    fn stack(&mut self, stack: u32, state: State) -> u32 {
        let node = self.tree.of_stack[stack as usize];
        let group = self.tree.group[node as usize];
        let (function, ..) = self.groups.keys[group as usize];
        let usual = self.functions[function as usize].category;
        let category = usual.in_state(state);
        // The tree's node 0 is no stack.
        if category == usual {
            return node - 1;
        }
        let frame = self.groups.keys.len() as u32 + self.frames.of((group, category));
        self.tree.parent.len() as u32 - 1 + self.stacks.of((node, frame))
    }

    /// Time between two samples, in microseconds.
    pub fn interval_us(&self) -> u64 {
        self.profile.meta.interval_ns / 1_000
    }

    /// Whether there is Python code only.
    pub fn is_of_one_kind(&self) -> bool {
        self.functions.iter().all(|function| function.category != Category::Native)
    }

    /// Writes them, as the value of `shared`.
    pub fn write(&self, json: &mut Json<'_>) -> io::Result<()> {
        self.write_stacks(json)?;
        self.write_frames(json)?;
        self.write_functions(json)?;
        json.raw(NO_ROWS)?;
        json.raw(",\"stringArray\":")?;
        let shown: Vec<_> = self.strings.keys.iter().map(|text| one_line(text)).collect();
        json.array(shown.iter().map(|text| Cell::Text(text)))?;
        json.raw("}")
    }

    fn write_stacks(&self, json: &mut Json<'_>) -> io::Result<()> {
        let prefix = |node: u32| match self.tree.parent[node as usize] {
            0 => Cell::Null,
            parent => Cell::Number(u64::from(parent) - 1),
        };
        let number = |frame: u32| Cell::Number(frame.into());
        let nodes = 1..self.tree.parent.len() as u32;
        let own = &self.stacks.keys;
        let mut frames = self.tree.group[1..]
            .iter()
            .map(|&group| number(group))
            .chain(own.iter().map(|&(_, frame)| number(frame)));
        let mut prefixes = nodes.map(prefix).chain(own.iter().map(|&(node, _)| prefix(node)));
        json.table("{\"stackTable\":{", &mut [("frame", &mut frames), ("prefix", &mut prefixes)])
    }

    fn write_frames(&self, json: &mut Json<'_>) -> io::Result<()> {
        let usual =
            self.groups.keys.iter().map(|&key| (key, self.functions[key.0 as usize].category));
        let own = self.frames.keys.iter().map(|&(group, category)| {
            let key = self.groups.keys[group as usize];
            (key, category)
        });
        let all = usual.chain(own);
        let length = self.groups.keys.len() + self.frames.keys.len();
        json.table(
            ",\"frameTable\":{",
            &mut [
                ("func", &mut all.clone().map(|((function, ..), _)| Cell::Number(function.into()))),
                ("category", &mut all.clone().map(|(_, category)| category.cell())),
                ("subcategory", &mut repeat_n(Cell::Number(0), length)),
                ("line", &mut all.clone().map(|((_, line, _), _)| known(line))),
                ("column", &mut all.map(|((.., column), _)| known(column))),
                ("address", &mut repeat_n(Cell::Nothing, length)),
                ("inlineDepth", &mut repeat_n(Cell::Number(0), length)),
                ("nativeSymbol", &mut repeat_n(Cell::Null, length)),
                ("innerWindowID", &mut repeat_n(Cell::Null, length)),
            ],
        )
    }

    fn write_functions(&self, json: &mut Json<'_>) -> io::Result<()> {
        let rows = self.functions.iter();
        let first_lines = self.profile.functions.iter().map(|function| known(function.first_line));
        let is = |wanted: &'static [Category]| {
            rows.clone().map(|function| Cell::Flag(wanted.contains(&function.category)))
        };
        let number = |number: u32| Cell::Number(number.into());
        let length = rows.len();
        json.table(
            ",\"funcTable\":{",
            &mut [
                ("name", &mut rows.clone().map(|function| number(function.name))),
                ("isJS", &mut is(&[Category::Python])),
                ("relevantForJS", &mut is(&[Category::Gc, Category::Other])),
                ("resource", &mut repeat_n(Cell::Nothing, length)),
                ("source", &mut rows.clone().map(|row| row.source.map_or(Cell::Null, number))),
                ("lineNumber", &mut { first_lines }),
                ("columnNumber", &mut repeat_n(Cell::Null, length)),
            ],
        )?;
        let sources = self.sources.keys.iter();
        json.table(
            ",\"sources\":{",
            &mut [
                ("uuid", &mut repeat_n(Cell::Null, sources.len())),
                ("filename", &mut sources.map(|&file| number(file))),
            ],
        )
    }
}

/// A line or column.
fn known(number: u32) -> Cell<'static> {
    match number {
        0 => Cell::Null,
        number => Cell::Number(number.into()),
    }
}
