//! Intervals in which a thread was in one state, from the states of its successive samples.

use super::json::Cell;
use super::moments::Row;
use super::opcodes::{self, Opcodes};
use super::tables::Category;
use crate::profile::State;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// What markers are called; they refer to it by number.
pub(super) const NAMES: [&str; 8] = [
    "Has GIL",
    "Waiting for GIL",
    "No GIL",
    "On CPU",
    "Off CPU",
    "GC Collecting",
    "Has Exception",
    "No Exception",
];

/// One of the questions that states answer.
struct Track {
    /// The type of its markers, which the schema explains.
    kind: &'static str,
    description: &'static str,
    category: Category,
    /// The number of the marker's name, and above that of what else is told of it.
    what: fn(State) -> Option<u32>,
}

/// Where what else is told begins: of collections one more than the generation.
const DETAIL: u32 = 8;
const GC_DATA: [&str; 3] = [
    r#"{"type":"GC","generation":0}"#,
    r#"{"type":"GC","generation":1}"#,
    r#"{"type":"GC","generation":2}"#,
];

const TRACKS: [Track; 4] = [
    Track {
        kind: "GIL",
        description: "Whether the thread held the GIL, waited for it, or neither; without a GIL, \
                      whether it was attached to its interpreter.",
        category: Category::Gil,
        what: |state| {
            Some(match state {
                state if state.has(State::HAS_GIL) => 0,
                state if state.has(State::WAITS_FOR_GIL) => 1,
                _ => 2,
            })
        },
    },
    Track {
        kind: "CPU",
        description: "Whether the thread was running on a processor.",
        category: Category::Cpu,
        what: |state| Some(if state.has(State::ON_CPU) { 3 } else { 4 }),
    },
    Track {
        kind: "GC",
        description: "The thread was collecting garbage.",
        category: Category::Gc,
        what: |state| {
            let detail = state.generation().map_or(0, |generation| u32::from(generation) + 1);
            state.has(State::IN_GC).then_some(5 | detail << DETAIL)
        },
    },
    Track {
        kind: "Exception",
        description: "Whether the thread was handling an exception.",
        category: Category::Exception,
        what: |state| Some(if state.has(State::HAS_EXCEPTION) { 6 } else { 7 }),
    },
];

/// The track of the instructions, behind the others.
const OPCODES: usize = TRACKS.len();

/// What a viewer is told of the markers.
pub(super) fn schema(has_opcodes: bool) -> Value {
    let row = |track: Track| {
        json!({
            "name": track.kind,
            "display": ["marker-chart", "marker-table"],
            "chartLabel": "{marker.name}",
            "tableLabel": "{marker.name}",
            "tooltipLabel": "{marker.name}",
            "description": track.description,
            "fields": match track.kind {
                "GC" => json!([{"key": "generation", "label": "Oldest generation", "format": "integer"}]),
                _ => json!([]),
            },
        })
    };
    let opcodes = has_opcodes.then(opcodes::schema);
    TRACKS.map(row).into_iter().chain(opcodes).collect()
}

/// One interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    track: u8,
    /// Which of [`NAMES`] it has and what else is told, or which place of [`Opcodes`] it is of.
    what: u32,
    pub start_us: u64,
    pub end_us: u64,
}

impl Marker {
    /// One of the questions that states answer; `None` if it is of an instruction.
    fn track(&self) -> Option<&'static Track> {
        const { &TRACKS }.get(usize::from(self.track))
    }

    /// The number of its name among the strings.
    pub fn name(&self, opcodes: &Opcodes) -> u32 {
        self.track().map_or_else(|| opcodes.name(self.what), |_| self.what % (1 << DETAIL))
    }

    /// What is told beside the name, if that is something.
    fn detail(&self) -> Option<usize> {
        (self.what as usize >> DETAIL).checked_sub(1)
    }

    pub fn category(&self) -> Category {
        self.track().map_or(Category::Opcodes, |track| track.category)
    }

    /// What is known of it, with its type.
    pub fn data<'a>(&self, opcodes: &'a Opcodes) -> Cell<'a> {
        match self.track() {
            Some(track) => {
                let data = self.detail().and_then(|generation| GC_DATA.get(generation));
                data.map_or(Cell::OfType(track.kind), |data| Cell::Raw(data))
            }
            None => Cell::Raw(opcodes.data(self.what)),
        }
    }
}

/// The markers of one thread, as they end.
pub(super) struct Markers<'a, I> {
    rows: I,
    opcodes: &'a Opcodes,
    /// What has begun on each track.
    begun: [Option<Marker>; TRACKS.len() + 1],
    /// How long nothing may be known of the thread within an interval.
    most_gap_us: u64,
    end_us: u64,
    ended: VecDeque<Marker>,
}

impl<'a, I: Iterator<Item = Row>> Markers<'a, I> {
    pub fn new(rows: I, opcodes: &'a Opcodes, interval_us: u64) -> Self {
        let (begun, ended) = ([None; TRACKS.len() + 1], VecDeque::new());
        Self { rows, opcodes, begun, most_gap_us: interval_us, end_us: 0, ended }
    }

    /// Ends what has begun and is not to go on.
    fn end(&mut self, goes_on: impl Fn(&Marker) -> bool) {
        for begun in &mut self.begun {
            if let Some(marker) = begun.take_if(|marker| !goes_on(marker)) {
                self.ended.push_back(Marker { end_us: self.end_us, ..marker });
            }
        }
    }

    fn row(&mut self, row: Row) {
        let mut now = [None; TRACKS.len() + 1];
        for (now, track) in now.iter_mut().zip(TRACKS) {
            *now = (track.what)(row.state);
        }
        now[OPCODES] = self.opcodes.place(row.sample);
        let is_next = row.start_us <= self.end_us.saturating_add(self.most_gap_us);
        if is_next {
            // If there is a gap, the state changed somewhere in it.
            self.end_us = self.end_us.max(row.start_us);
        }
        self.end(|marker| is_next && now[usize::from(marker.track)] == Some(marker.what));
        for ((begun, what), track) in self.begun.iter_mut().zip(now).zip(0..) {
            let start_us = row.start_us.max(self.end_us);
            let marker = what.map(|what| Marker { track, what, start_us, end_us: start_us });
            *begun = begun.or(marker);
        }
        self.end_us = row.end_us.max(self.end_us);
    }
}

impl<I: Iterator<Item = Row>> Iterator for Markers<'_, I> {
    type Item = Marker;

    fn next(&mut self) -> Option<Marker> {
        loop {
            if let Some(marker) = self.ended.pop_front() {
                return Some(marker);
            }
            match self.rows.next() {
                Some(row) => self.row(row),
                None if self.begun.iter().all(Option::is_none) => return None,
                None => self.end(|_| false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::empty;

    /// Name, start and end of the markers of one type.
    fn markers(kind: &str, rows: &[(State, u64, u64)]) -> Vec<(&'static str, u64, u64)> {
        let rows = rows.iter().map(|&(state, start_us, end_us)| Row {
            sample: 0,
            state,
            start_us,
            end_us,
            cpu_us: 0,
            count: 1,
        });
        let opcodes = Opcodes::new(&empty(), |_| 0);
        Markers::new(rows, &opcodes, 10)
            .filter(|marker| marker.track().is_some_and(|track| track.kind == kind))
            .map(|marker| (NAMES[marker.name(&opcodes) as usize], marker.start_us, marker.end_us))
            .collect()
    }

    #[test]
    fn states_last_until_they_change() {
        let (gil, gc) = (State::HAS_GIL, State::IN_GC);
        let rows = [(gil, 5, 10), (gil, 10, 20), (gc, 20, 30), (gil, 35, 40), (gil, 38, 50)];
        let of_gil = [("Has GIL", 5, 20), ("No GIL", 20, 35), ("Has GIL", 35, 50)];
        assert_eq!(markers("GIL", &rows), of_gil);
        assert_eq!(markers("GC", &rows), [("GC Collecting", 20, 35)]);
        assert_eq!(markers("CPU", &rows), [("Off CPU", 5, 50)]);
        assert_eq!(markers("CPU", &[]), []);
        let old = gc.collecting(Some(2));
        let rows = [(gc, 5, 10), (old, 10, 20), (old, 20, 30), (gil, 30, 40)];
        assert_eq!(markers("GC", &rows), [("GC Collecting", 5, 10), ("GC Collecting", 10, 30)]);
    }

    #[test]
    fn nothing_is_said_of_when_nothing_is_known() {
        let cpu = State::ON_CPU;
        let rows = [(cpu, 100, 110), (cpu, 120, 130), (cpu, 141, 150)];
        assert_eq!(markers("CPU", &rows), [("On CPU", 100, 130), ("On CPU", 141, 150)]);
    }
}
