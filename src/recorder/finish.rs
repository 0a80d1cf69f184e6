//! From what was recorded to the profile that the exporters read.

use std::collections::HashMap;

use super::tallies::Tally;
use super::trie::FrameIndex;
use super::{NodeId, Recorder, Spool};
use crate::profile::blocks::Block;
use crate::profile::{
    Frame, FrameId, Function, FunctionId, Location, Meta, Numbers, ProcessId, Profile, Sample,
    Stack, StackId, Thread, ThreadId, Timeline,
};
use crate::reader::codes::{CodeId, CodeTable};

impl Recorder {
    /// The profile so far. `meta` says what only the session knows; the counts are filled in here.
    pub fn profile(&self, codes: &CodeTable, meta: Meta) -> Profile {
        let meta = Meta {
            ticks: self.ticks,
            missed: self.missed,
            samples: self.samples,
            failed: self.failed,
            ..meta
        };
        let mut functions = Numbers::default();
        let mut by_code = HashMap::new();
        let mut frames: Vec<Frame> = self
            .trie
            .frames()
            .iter()
            .map(|located| Frame {
                function: *by_code
                    .entry(located.code)
                    .or_insert_with(|| FunctionId(functions.of(function(codes, located.code)))),
                location: codes.locate(located.code, located.index),
                instruction: located.index,
                opcode: located.opcode,
            })
            .collect();
        // The one frame that is no code object's, at the end.
        let truncated = FrameId(frames.len() as u32);
        let (function, location) = self::truncated();
        let function = FunctionId(functions.of(function));
        frames.push(Frame { function, location, instruction: -1, opcode: None });
        let stacks = self
            .trie
            .nodes()
            .iter()
            .map(|&(parent, frame)| Stack {
                parent: (parent != NodeId::ROOT).then_some(StackId(parent.0)),
                frame: if frame == FrameIndex::TRUNCATED { truncated } else { FrameId(frame.0) },
            })
            .collect();
        let threads = self
            .threads
            .iter()
            .map(|label| Thread {
                process: ProcessId(0),
                tid: label.tid,
                name: label.name.clone(),
                is_main: label.tid == meta.pid,
                interpreter: label.interpreter,
            })
            .collect();
        let mut tallies: Vec<(usize, &Tally)> = self.tallies.rows().iter().enumerate().collect();
        tallies.sort_unstable_by_key(|(_, tally)| tally.key);
        let mut sample_of = vec![0; tallies.len()];
        let samples = (0..).zip(tallies).map(|(index, (number, tally))| {
            sample_of[number] = index;
            let (thread, NodeId(node), state) = tally.key;
            Sample {
                thread: ThreadId(thread),
                stack: StackId(node),
                state,
                count: tally.count,
                weight_ns: tally.wall_ns,
                cpu_ns: tally.cpu_ns,
            }
        });
        let samples = samples.collect();
        let mut blocks = self.spool.as_ref().map(Spool::full_blocks).unwrap_or_default();
        blocks.extend(self.moments.now());
        let blocks = blocks.into_iter().map(Block::Held).collect();
        Profile {
            processes: vec![meta.process()],
            meta,
            functions: functions.keys,
            frames,
            stacks,
            threads,
            samples,
            timeline: Timeline::new(blocks, sample_of),
        }
    }
}

/// Stands for frames that were left out of a stack too deep to be walked.
pub(super) fn truncated() -> (Function, Location) {
    let function = Function { file: "~".into(), name: "<truncated>".into(), first_line: 0 };
    (function, Location::default())
}

/// The function of a code object.
pub(super) fn function(codes: &CodeTable, id: CodeId) -> Function {
    codes.code(id).map_or_else(
        || Function { file: "~".into(), name: "<unknown>".into(), first_line: 0 },
        |code| Function {
            file: code.file.clone(),
            name: code.name.clone(),
            first_line: code.first_line,
        },
    )
}
