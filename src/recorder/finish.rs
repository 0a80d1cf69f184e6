//! From what was recorded to the profile that the exporters read.

use std::collections::HashMap;

use super::trie::FrameIndex;
use super::{NodeId, Recorder};
use crate::profile::{
    Frame, FrameId, Function, FunctionId, Location, Meta, Profile, Sample, Stack, StackId, Thread,
    ThreadId,
};
use crate::reader::codes::CodeTable;

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
        let mut functions = Functions::default();
        let mut frames: Vec<Frame> = self
            .trie
            .frames()
            .iter()
            .map(|located| Frame {
                function: functions.of(codes, located.code),
                location: codes.locate(located.code, located.index),
                instruction: located.index,
            })
            .collect();
        // The one frame that is no code object's, at the end.
        let truncated = FrameId(frames.len() as u32);
        frames.push(Frame {
            function: functions.intern(Function {
                file: "~".into(),
                name: "<truncated>".into(),
                first_line: 0,
            }),
            location: Location::default(),
            instruction: -1,
        });
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
                tid: label.tid,
                name: label.name.clone(),
                is_main: label.tid == meta.pid,
                interpreter: label.interpreter,
            })
            .collect();
        let mut samples: Vec<Sample> = self
            .tallies
            .iter()
            .map(|(&(thread, node), tally)| Sample {
                thread: ThreadId(thread),
                stack: StackId(node),
                count: tally.count,
                weight_ns: tally.weight_ns,
            })
            .collect();
        samples.sort_unstable_by_key(|sample| (sample.thread, sample.stack));
        Profile { meta, functions: functions.list, frames, stacks, threads, samples }
    }
}

#[derive(Default)]
struct Functions {
    list: Vec<Function>,
    by_code: HashMap<u32, FunctionId>,
    by_content: HashMap<Function, FunctionId>,
}

impl Functions {
    fn of(&mut self, codes: &CodeTable, id: crate::reader::codes::CodeId) -> FunctionId {
        if let Some(&known) = self.by_code.get(&id.0) {
            return known;
        }
        let function = codes.code(id).map_or_else(
            || Function { file: "~".into(), name: "<unknown>".into(), first_line: 0 },
            |code| Function {
                file: code.file.clone(),
                name: code.name.clone(),
                first_line: code.first_line,
            },
        );
        let function = self.intern(function);
        self.by_code.insert(id.0, function);
        function
    }

    fn intern(&mut self, function: Function) -> FunctionId {
        let next = FunctionId(self.list.len() as u32);
        let id = *self.by_content.entry(function.clone()).or_insert(next);
        if id == next {
            self.list.push(function);
        }
        id
    }
}
