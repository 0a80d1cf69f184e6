//! The recording on disk: what is recorded is mirrored to a mapped file as it happens, so that
//! whatever ends the process leaves a profile.
//!
//! A sample whose stack the thread was seen in before costs two stores. The file grows with what is
//! distinct, as the memory does.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::finish;
use super::format::{self, Kind, counter, put, put_frame, put_long, put_process, put_text};
use super::moments::{BLOCK, Moments};
use super::tallies::Tally;
use super::trie::FrameIndex;
use super::{NodeId, RecordedThread, StackTrie};
use crate::os::shared_file::SharedFile;
use crate::profile::{Frame, Function, FunctionId, Meta};
use crate::reader::codes::CodeTable;

/// By how much the file grows: by its length, within these.
const LEAST_GROWTH: usize = 256 << 10;
const MOST_GROWTH: usize = 4 << 20;
/// Room for a thread's name; a longer one gets a record of its own with more.
const NAME_ROOM: usize = 64;
/// Not in the file yet.
const NONE: u32 = u32::MAX;

/// What is recorded, as the spool gets to see it.
pub(super) struct News<'a> {
    pub trie: &'a StackTrie,
    pub threads: &'a [RecordedThread],
    pub tallies: &'a mut [Tally],
    pub moments: &'a mut Moments,
    pub codes: &'a CodeTable,
}

/// Where a thread's name is.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    at: usize,
    room: usize,
}

/// The file and how much of what is recorded is in it.
#[derive(Debug)]
pub(super) struct Spool {
    file: SharedFile,
    used: usize,
    /// A record's contents while it is made.
    contents: Vec<u8>,
    pid: u32,
    /// The number of each code object's function; [`NONE`] where it has none yet.
    function_of: Vec<u32>,
    functions: u32,
    frames: usize,
    stacks: usize,
    names: Vec<Name>,
    renamed: Vec<u32>,
    new_tallies: Vec<u32>,
    blocks: Blocks,
}

/// Which blocks of the timeline are in the file.
#[derive(Debug, Default)]
struct Blocks {
    /// Where the full ones are.
    full: Vec<usize>,
    /// Where the one that is being filled is, and how much of it.
    last: Option<(usize, usize)>,
    /// Where the next ones will be, the last of these first.
    spare: Vec<usize>,
}

impl Spool {
    /// A new file for a process, to which the first update will add all threads and so many tallies.
    pub fn create(path: &Path, meta: &Meta, threads: usize, tallies: usize) -> io::Result<Self> {
        let mut spool = Self {
            file: SharedFile::create(path, LEAST_GROWTH)?,
            used: format::HEADER_BYTES,
            contents: Vec::new(),
            pid: meta.pid,
            function_of: Vec::new(),
            functions: 0,
            frames: 0,
            stacks: 0,
            names: Vec::new(),
            renamed: (0..threads as u32).collect(),
            new_tallies: (0..tallies as u32).collect(),
            blocks: Blocks::default(),
        };
        match spool.begin(meta) {
            Ok(()) => Ok(spool),
            Err(error) => {
                spool.remove();
                Err(error)
            }
        }
    }

    fn begin(&mut self, meta: &Meta) -> io::Result<()> {
        self.add(Kind::Meta, |contents| {
            put_process(contents, &meta.process(), meta.interval_ns);
        })?;
        // The one frame that is no code object's comes first.
        let (function, location) = finish::truncated();
        let function = self.add_function(&function)?;
        let function = FunctionId(function);
        self.add_frame(&Frame { function, location, instruction: -1, opcode: None })?;
        self.file.write(format::VERSION_AT, &format::VERSION.to_le_bytes());
        self.file.write(0, &format::MAGIC);
        Ok(())
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub fn remove(self) {
        self.file.remove();
    }

    /// Notes one more sample.
    pub fn count(&mut self, number: u32, tally: &Tally) {
        if tally.spooled_at != 0 {
            let numbers = [tally.count, tally.wall_ns, tally.cpu_ns].map(u64::to_le_bytes);
            self.file.write(tally.spooled_at + format::TALLY_NUMBERS, numbers.as_flattened());
        } else if !self.file.is_empty() {
            self.new_tallies.push(number);
        }
    }

    /// Notes that a thread has another name.
    pub fn rename(&mut self, thread: u32) {
        if !self.file.is_empty() {
            self.renamed.push(thread);
        }
    }

    /// Adds what is new, and stores the counts: ticks, missed, failed, elapsed time.
    pub fn update(&mut self, mut news: News<'_>, counts: [u64; 4], samples: u64) {
        if self.file.is_empty() {
            return;
        }
        let complete = self.add_moments(news.moments).is_ok() && self.add_news(&mut news).is_ok();
        self.file.write(counter::TICKS, counts.map(u64::to_le_bytes).as_flattened());
        self.file.write(counter::SAMPLES, &samples.to_le_bytes());
        if !complete {
            self.file.write(counter::FULL, &1_u64.to_le_bytes());
        }
        if !complete || SharedFile::is_lost() {
            self.file.close();
            news.moments.keep_full();
            self.renamed = Vec::new();
            self.new_tallies = Vec::new();
        }
    }

    fn add_news(&mut self, news: &mut News<'_>) -> io::Result<()> {
        let News { trie, threads, tallies, codes, .. } = news;
        for located in trie.frames().iter().skip(self.frames) {
            let code = located.code.0 as usize;
            if self.function_of.len() <= code {
                self.function_of.resize(codes.len().max(code + 1), NONE);
            }
            if self.function_of[code] == NONE {
                let function = finish::function(codes, located.code);
                self.function_of[code] = self.add_function(&function)?;
            }
            self.add_frame(&Frame {
                function: FunctionId(self.function_of[code]),
                location: codes.locate(located.code, located.index),
                instruction: located.index,
                opcode: located.opcode,
            })?;
            self.frames += 1;
        }
        for &(parent, frame) in trie.nodes().iter().skip(self.stacks) {
            self.add(Kind::Stack, |contents| {
                put(contents, if parent == NodeId::ROOT { format::NO_PARENT } else { parent.0 });
                // The first is not the trie's.
                put(contents, if frame == FrameIndex::TRUNCATED { 0 } else { frame.0 + 1 });
            })?;
            self.stacks += 1;
        }
        for thread in threads.iter().skip(self.names.len()) {
            let is_main = thread.tid == self.pid;
            self.add(Kind::Thread, |contents| {
                put(contents, 0);
                put(contents, thread.tid);
                put(contents, is_main.into());
                put_long(contents, thread.interpreter as u64);
            })?;
            self.names.push(Name::default());
        }
        while let Some(&thread) = self.renamed.last() {
            self.add_name(thread, &threads[thread as usize].name)?;
            self.renamed.pop();
        }
        // In the order of their numbers: the reader has as many places as there are tallies.
        for index in 0..self.new_tallies.len() {
            let number = self.new_tallies[index];
            let tally = tallies.get_mut(number as usize);
            if let Some(tally) = tally.filter(|tally| tally.spooled_at == 0) {
                let (thread, node, state) = tally.key;
                tally.spooled_at = self.add(Kind::Tally, |contents| {
                    put(contents, thread);
                    put(contents, node.0);
                    put(contents, state.bits().into());
                    put(contents, number);
                    put_long(contents, tally.count);
                    put_long(contents, tally.wall_ns);
                    put_long(contents, tally.cpu_ns);
                })?;
            }
        }
        self.new_tallies.clear();
        Ok(())
    }

    fn add_moments(&mut self, moments: &mut Moments) -> io::Result<()> {
        moments.take_full(|block| {
            let at = self.fill_block(block)?;
            self.file.release(at, BLOCK);
            self.blocks.full.push(at);
            self.blocks.last = None;
            Ok::<_, io::Error>(())
        })?;
        if !moments.block().is_empty() {
            self.fill_block(moments.block())?;
        }
        Ok(())
    }

    /// Adds what is new in the block that is being filled, and returns where the block is.
    fn fill_block(&mut self, block: &[u8]) -> io::Result<usize> {
        let (at, known) = match self.blocks.last {
            Some(last) => last,
            None => (self.next_block()?, 0),
        };
        // The first byte comes last: an entry that is not whole reads as the end.
        if let Some((first, rest)) = block.get(known..).and_then(<[u8]>::split_first) {
            self.file.write(at + known + 1, rest);
            self.file.write(at + known, &[*first]);
        }
        self.blocks.last = Some((at, block.len()));
        Ok(at)
    }

    /// Where the next block will be. They are added by ever more, one behind the other: a tally that lies
    /// between two of them keeps its page in memory, however rarely it counts.
    fn next_block(&mut self) -> io::Result<usize> {
        /// Which part of the full ones is added at once, and how many of them at most.
        const PART: usize = 4;
        const MOST: usize = 32;
        if self.blocks.spare.is_empty() {
            let count = (self.blocks.full.len() / PART).clamp(1, MOST);
            // The last room is for whatever comes first.
            let has_room = count == 1 || self.make_room(2 * count * BLOCK).is_ok();
            for _ in 0..if has_room { count } else { 1 } {
                let block = self.add_block()?;
                self.blocks.spare.push(block);
            }
            self.blocks.spare.reverse();
        }
        self.blocks.spare.pop().ok_or(io::ErrorKind::StorageFull.into())
    }

    /// The full blocks of the timeline; those that can be read back.
    pub fn full_blocks(&self) -> Vec<Arc<[u8]>> {
        self.file.read(&self.blocks.full, BLOCK).unwrap_or_default()
    }

    fn add_function(&mut self, function: &Function) -> io::Result<u32> {
        self.add(Kind::Function, |contents| {
            put(contents, function.first_line);
            put_text(contents, &function.file);
            put_text(contents, &function.name);
        })?;
        self.functions += 1;
        Ok(self.functions - 1)
    }

    fn add_frame(&mut self, frame: &Frame) -> io::Result<usize> {
        self.add(Kind::Frame, |contents| put_frame(contents, frame))
    }

    /// A program may rename its threads for ever: a name takes the place of the one before.
    fn add_name(&mut self, thread: u32, name: &str) -> io::Result<()> {
        const TEXT_AT: usize = 4;
        let name = format::cut(name);
        let Name { at, room } = self.names[thread as usize];
        if name.is_empty() && room == 0 {
            // As it is without a record.
        } else if name.len() <= room {
            let length = (name.len() as u32).to_le_bytes();
            self.file.write(at + TEXT_AT, &[0; 4]);
            self.file.write(at + TEXT_AT + 4, name.as_bytes());
            self.file.write(at + TEXT_AT, &length);
        } else {
            let room = name.len().max(2 * room).next_multiple_of(NAME_ROOM);
            let at = self.add(Kind::ThreadName, |contents| {
                put(contents, thread);
                put_text(contents, name);
                contents.resize(TEXT_AT + 4 + room, 0);
            })?;
            self.names[thread as usize] = Name { at, room };
        }
        Ok(())
    }

    /// Adds a record and returns where its contents are.
    fn add(&mut self, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<usize> {
        self.contents.clear();
        fill(&mut self.contents);
        let at = self.room_for_contents()?;
        self.file.write(at, &self.contents);
        self.complete(kind, at);
        Ok(at)
    }

    /// Adds an empty block of the timeline: zeros, as which a file begins.
    fn add_block(&mut self) -> io::Result<usize> {
        self.contents.clear();
        self.contents.resize(BLOCK, 0);
        let at = self.room_for_contents()?;
        self.complete(Kind::Moments, at);
        Ok(at)
    }

    /// Where the contents of the next record will be.
    fn room_for_contents(&mut self) -> io::Result<usize> {
        self.make_room(format::HEAD_BYTES + format::padded(self.contents.len()))?;
        Ok(self.used + format::HEAD_BYTES)
    }

    /// Makes a record of the contents, which are in the file.
    fn complete(&mut self, kind: Kind, at: usize) {
        let length = self.contents.len();
        self.file.write(at - 4, &kind.checksum(&self.contents).to_le_bytes());
        self.file.write(self.used, &kind.word(length).to_le_bytes());
        self.used = at + format::padded(length);
        self.file.write(counter::USED, &(self.used as u64).to_le_bytes());
    }

    /// Sees to it that so many bytes more can be used.
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        while self.used + bytes > self.file.len() {
            let length = self.file.len();
            let longer = length + length.clamp(LEAST_GROWTH, MOST_GROWTH);
            if longer > format::MOST_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.file.grow(longer)?;
        }
        Ok(())
    }
}
