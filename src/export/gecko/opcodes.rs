//! The instructions that threads were at, which become markers where they were recorded.

use super::super::one_line;
use crate::profile::{Frame, Numbers, Opcode, Profile};
use serde_json::{Value, json};

/// The type of their markers.
pub(super) const KIND: &str = "Opcode";

/// An instruction at its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    function: u32,
    line: u32,
    column: u32,
    opcode: Opcode,
}

/// What is on top of the samples of a profile.
pub(super) struct Opcodes {
    /// The place of each sample, if its instruction is known.
    of_sample: Vec<Option<u32>>,
    /// The number of each place's name among the strings.
    names: Vec<u32>,
    /// The data of each place's markers, as JSON.
    data: Vec<String>,
}

impl Opcodes {
    /// Those of a profile; `string` numbers names.
    pub fn new(profile: &Profile, mut string: impl FnMut(&'static str) -> u32) -> Self {
        let mut places = Numbers::default();
        let mut place = |frame: &Frame| {
            // What has no name cannot be shown as a name.
            let opcode = frame.opcode.filter(|opcode| opcode.name().is_some())?;
            let (line, column) = (frame.location.line, frame.location.column);
            Some(places.of(Place { function: frame.function.0, line, column, opcode }))
        };
        let top = |stack: usize| profile.frame(profile.stacks[stack].frame);
        let of_sample =
            profile.samples.iter().map(|sample| place(top(sample.stack.0 as usize))).collect();
        let names = places.keys.iter().map(|place| string(place.opcode.name().unwrap_or_default()));
        let names = names.collect();
        let data = places.keys.iter().map(|place| data(profile, place).to_string()).collect();
        Self { of_sample, names, data }
    }

    /// Whether any is known.
    pub fn is_any(&self) -> bool {
        !self.names.is_empty()
    }

    /// The place of a sample.
    pub fn place(&self, sample: usize) -> Option<u32> {
        self.of_sample.get(sample).copied().flatten()
    }

    /// The number of a place's name among the strings.
    pub fn name(&self, place: u32) -> u32 {
        self.names[place as usize]
    }

    /// The data of a place's markers.
    pub fn data(&self, place: u32) -> &str {
        &self.data[place as usize]
    }
}

fn data(profile: &Profile, place: &Place) -> Value {
    let Place { function, line, column, opcode } = *place;
    let function = &profile.functions[function as usize];
    let base = opcode.base().unwrap_or(opcode);
    let mut data = json!({
        "type": KIND,
        "opname": opcode.to_string(),
        "base_opname": base.to_string(),
        "is_specialized": if opcode.is_specialised() { "yes" } else { "no" },
        "line": line,
        "function": one_line(&function.name),
    });
    if column > 0 {
        data["column"] = column.into();
    }
    data
}

/// What a viewer is told of the markers.
pub(super) fn schema() -> Value {
    let field = |key, label, format| json!({"key": key, "label": label, "format": format});
    json!({
        "name": KIND,
        "display": ["marker-chart", "marker-table"],
        "chartLabel": "{marker.data.opname}",
        "tableLabel": "{marker.data.opname} at line {marker.data.line} of {marker.data.function}",
        "tooltipLabel": "{marker.data.opname}",
        "description": "The instruction that the thread was at.",
        "fields": [
            field("opname", "Opcode", "string"),
            field("base_opname", "Base opcode", "string"),
            field("is_specialized", "Specialised", "string"),
            field("line", "Line", "integer"),
            field("column", "Column", "integer"),
            field("function", "Function", "string"),
        ],
    })
}
