//! A profile from a recording: from the file that a process kept while it ran. What it holds is not
//! trusted: what is damaged is found, and what stands before is used.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::blocks::{Block, BlockFile};
use super::{
    Frame, FrameId, Function, FunctionId, Meta, Numbers, Process, ProcessId, Profile, Sample,
    Stack, StackId, State, Thread, ThreadId, Timeline,
};
use crate::reader::frames::MOST_FRAMES;
use crate::recorder::format::{self, Contents, Kind, counter};

/// The deepest stack: all frames that are read, and the one that stands for the others.
const DEEPEST: u32 = MOST_FRAMES as u32 + 1;

/// The most samples: eight years of a million a second. Sums over many recordings do not overflow.
const MOST_SAMPLES: u64 = 1 << 48;

/// Timelines of larger files stay there. Of small ones there may be so many that descriptors run out.
const LARGE: u64 = 4 << 20;
const BUFFER: usize = 256 << 10;

/// Why there is no profile in a file.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] io::Error),
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is a file of another kind.
    #[error("it is not a recording of pysamp")]
    Foreign,
    /// A newer or older pysamp made it.
    #[error("it was made by another version of pysamp (format {0}; this one reads {read})", read = format::VERSION)]
    Version(u32),
    /// What does not grow with time is larger than any process's.
    #[error("its stacks and names take more than {most} MB", most = format::MOST_BYTES >> 20)]
    TooLarge,
    /// Damage begins before the first sample.
    #[error("it is damaged, and nothing before the damage can be used")]
    Damaged,
}

/// Why a profile is not all that there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Something is wrong in the middle, or the end is missing.
    #[error("the recording is damaged after {intact} of {length} bytes; what is before is used")]
    Broken {
        /// Bytes before the damage.
        intact: usize,
        /// Bytes that there should be.
        length: usize,
    },
    /// There was no room on the disk to go on.
    #[error("there was no room to record more than the first {:.1} s", *.duration_ns as f64 / 1e9)]
    NoRoom {
        /// Until when everything is there.
        duration_ns: u64,
    },
}

/// Reads the recording at a path. The timeline of a large one is left in the file, which has to stay as it is
/// while the profile is used; see [`Timeline::is_cut`].
pub fn read_file(path: &Path) -> Result<(Profile, Option<Damage>), Unreadable> {
    read_file_counting(path, &AtomicU64::new(0))
}

/// As [`read_file`]; meanwhile, the bytes that were read are added to `done`.
pub fn read_file_counting(
    path: &Path,
    done: &AtomicU64,
) -> Result<(Profile, Option<Damage>), Unreadable> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    let is_large = found.is_file() && found.len() > LARGE;
    let blocks = if is_large { Some(file.try_clone()?) } else { None };
    let file = Counting { input: file, done };
    read_from(BufReader::with_capacity(BUFFER, file), blocks.map(BlockFile::new))
}

/// Counts what is read.
struct Counting<'a, R> {
    input: R,
    done: &'a AtomicU64,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(to)?;
        self.done.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// How far a recording is that is being made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// As [`Meta::ticks`].
    pub ticks: u64,
    /// As [`Meta::missed`].
    pub missed: u64,
    /// As [`Meta::samples`].
    pub samples: u64,
    /// As [`Meta::failed`].
    pub failed: u64,
}

/// Reads how far the recording at a path is.
pub fn counters(path: &Path) -> Result<Counters, Unreadable> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(format::HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    check_header(&bytes)?;
    let at = |place: usize| {
        let bytes = bytes.get(place..place + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let [ticks, missed, samples, failed] =
        [counter::TICKS, counter::MISSED, counter::SAMPLES, counter::FAILED].map(at);
    Ok(Counters { ticks, missed, samples, failed })
}

/// Reads a recording.
pub fn read(bytes: &[u8]) -> Result<(Profile, Option<Damage>), Unreadable> {
    read_from(bytes, None)
}

/// Reads a recording to its end, as a stream. Where there is a file to read blocks from again, they are left there.
fn read_from(
    input: impl Read,
    file: Option<BlockFile>,
) -> Result<(Profile, Option<Damage>), Unreadable> {
    let mut records = Records { input, contents: Vec::new(), at: 0 };
    let mut header = Vec::new();
    records.take(format::HEADER_BYTES, &mut header)?;
    check_header(&header)?;
    let mut reader = Reader { file: file.map(Arc::new), ..Reader::default() };
    let (mut intact, mut kept) = (records.at, 0);
    let broken = loop {
        let place = records.at + format::HEAD_BYTES as u64;
        let kind = match records.next()? {
            Next::Record(kind) => kind,
            Next::Broken => break true,
            Next::End => break false,
        };
        let contents = &records.contents;
        if kind != Kind::Moments {
            kept += contents.len();
        }
        if kept > format::MOST_BYTES {
            return Err(Unreadable::TooLarge);
        }
        if reader.add(kind, contents, place).is_none() {
            break true;
        }
        // What fills the record up need not be there.
        let length = format::padded(contents.len()) - contents.len();
        records.skip(length)?;
        intact = records.at;
    };
    if reader.profile.frames.is_empty() {
        return Err(Unreadable::Damaged);
    }
    let counter = |at: usize| Contents(&header[at..]).long().unwrap_or_default();
    let meta = &mut reader.profile.meta;
    meta.ticks = counter(counter::TICKS);
    meta.missed = counter(counter::MISSED);
    meta.failed = counter(counter::FAILED);
    meta.duration_ns = counter(counter::DURATION_NS);
    let used = counter(counter::USED);
    let damage = if broken || used > intact {
        let number = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (intact, used) = (number(intact), number(used));
        Some(Damage::Broken { intact, length: used.max(intact) })
    } else {
        let full = counter(counter::FULL) != 0;
        full.then_some(Damage::NoRoom { duration_ns: meta.duration_ns })
    };
    // Only finished profiles say which processes they are of.
    let is_unfinished = reader.profile.processes.is_empty();
    let mut profile = reader.finish();
    if is_unfinished && damage.is_none() && profile.has_timeline() {
        profile.end_runs();
    }
    // Entries of no sample tell nothing.
    if profile.has_timeline() && profile.moments().next().is_none() {
        profile.timeline = Timeline::default();
    }
    Ok((profile, damage))
}

fn check_header(bytes: &[u8]) -> Result<(), Unreadable> {
    let magic = &bytes[..bytes.len().min(format::MAGIC.len())];
    match Contents(bytes.get(format::VERSION_AT..).unwrap_or_default()).number() {
        _ if bytes.is_empty() => Err(Unreadable::Empty),
        _ if !format::MAGIC.starts_with(magic) => Err(Unreadable::Foreign),
        Some(version) if version != format::VERSION => Err(Unreadable::Version(version)),
        _ if bytes.len() < format::HEADER_BYTES => Err(Unreadable::Damaged),
        _ => Ok(()),
    }
}

/// The records of a stream.
struct Records<R> {
    input: R,
    /// The contents of the last one.
    contents: Vec<u8>,
    /// How much was read.
    at: u64,
}

enum Next {
    Record(Kind),
    /// What is there is not whole, or not as it was written.
    Broken,
    /// The rest of the file is room for more.
    End,
}

impl<R: Read> Records<R> {
    /// The next record, without what fills it up.
    fn next(&mut self) -> io::Result<Next> {
        let mut head = Vec::with_capacity(format::HEAD_BYTES);
        self.take(format::HEAD_BYTES, &mut head)?;
        if head.iter().take(4).all(|&byte| byte == 0) {
            return Ok(Next::End);
        }
        let mut head = Contents(&head);
        let known = head.number().and_then(Kind::of_word).zip(head.number());
        let Some(((kind, length), checksum)) = known else { return Ok(Next::Broken) };
        let mut contents = std::mem::take(&mut self.contents);
        contents.clear();
        self.take(length, &mut contents)?;
        let is_whole = contents.len() == length && kind.checksum(&contents) == checksum;
        self.contents = contents;
        Ok(if is_whole { Next::Record(kind) } else { Next::Broken })
    }

    /// Appends so many bytes, or as many as there are.
    fn take(&mut self, length: usize, to: &mut Vec<u8>) -> io::Result<()> {
        self.at += self.input.by_ref().take(length as u64).read_to_end(to)? as u64;
        Ok(())
    }

    fn skip(&mut self, length: usize) -> io::Result<()> {
        self.at += io::copy(&mut self.input.by_ref().take(length as u64), &mut io::sink())?;
        Ok(())
    }
}

/// Makes a profile of records.
#[derive(Default)]
struct Reader {
    profile: Profile,
    functions: Numbers<Function>,
    /// The function of each record of one: two may say the same.
    function_ids: Vec<FunctionId>,
    /// How many frames each stack has.
    depths: Vec<u32>,
    /// Where the sample of a thread, stack and state is.
    samples: HashMap<(ThreadId, StackId, State), u32>,
    /// Number of each tally, and its sample.
    sample_of: Vec<(u32, u32)>,
    /// Of the timeline.
    blocks: Vec<Block>,
    /// Where these can be read again.
    file: Option<Arc<BlockFile>>,
    /// Where those are that may still be filled, and their lengths.
    held: Vec<(u64, usize)>,
}

impl Reader {
    fn finish(self) -> Profile {
        let Self { mut profile, functions, sample_of: numbered, blocks, .. } = self;
        profile.functions = functions.keys;
        if profile.processes.is_empty() {
            profile.processes.push(profile.meta.process());
        }
        let last = ProcessId(profile.processes.len() as u32 - 1);
        profile.threads.iter_mut().for_each(|thread| thread.process = thread.process.min(last));
        // As many numbers as tallies, unless it is damaged.
        let mut sample_of = vec![u32::MAX; numbered.len()];
        for (number, sample) in numbered {
            if let Some(place) = sample_of.get_mut(number as usize) {
                *place = sample;
            }
        }
        profile.timeline = Timeline::new(blocks, sample_of);
        profile
    }

    /// Adds a record, whose contents are at a place in the file, unless it makes no sense.
    fn add(&mut self, kind: Kind, contents: &[u8], at: u64) -> Option<()> {
        let mut contents = Contents(contents);
        let profile = &mut self.profile;
        match kind {
            Kind::Meta => {
                let (process, interval_ns) = contents.process()?;
                let Process { pid, parent_pid, start_unix_ns, .. } = process;
                let Process { program, command, python, .. } = process;
                profile.meta = Meta {
                    pid,
                    parent_pid,
                    program,
                    command,
                    python,
                    start_unix_ns,
                    interval_ns,
                    ..Meta::default()
                };
            }
            Kind::Process => {
                let (process, duration_ns) = contents.process()?;
                profile.processes.push(Process { duration_ns, ..process });
            }
            Kind::Moments => {
                // What lies before one that is begun is full. The last one may be filled up meanwhile, and
                // what is read has to stay the same.
                let is_begun = contents.0.first().is_some_and(|&first| first != 0);
                if let Some(file) = self.file.as_ref().filter(|_| is_begun) {
                    let first = self.blocks.len() - self.held.len();
                    for (block, (at, length)) in
                        self.blocks[first..].iter_mut().zip(self.held.drain(..))
                    {
                        *block = Block::Filed { file: file.clone(), at, length };
                    }
                }
                if self.file.is_some() {
                    self.held.push((at, contents.0.len()));
                }
                self.blocks.push(if is_begun { contents.0 } else { &[] }.into());
            }
            Kind::Function => {
                let first_line = contents.number()?;
                let (file, name) = (contents.text()?.into(), contents.text()?.into());
                let number = self.functions.of(Function { file, name, first_line });
                self.function_ids.push(FunctionId(number));
            }
            Kind::Frame => {
                let frame = contents.frame()?;
                let function = *self.function_ids.get(frame.function.0 as usize)?;
                profile.frames.push(Frame { function, ..frame });
            }
            Kind::Stack => {
                let parent = contents.number()?;
                let parent = (parent != format::NO_PARENT).then_some(StackId(parent));
                let frame = contents.number()?;
                profile.frames.get(frame as usize)?;
                let depth = match parent {
                    None => 1,
                    Some(parent) => self.depths.get(parent.0 as usize)? + 1,
                };
                if depth > DEEPEST {
                    return None;
                }
                self.depths.push(depth);
                profile.stacks.push(Stack { parent, frame: FrameId(frame) });
            }
            Kind::Thread => {
                let process = ProcessId(contents.number()?);
                let (tid, is_main) = (contents.number()?, contents.number()? != 0);
                let interpreter = contents.long()? as i64;
                let name = "".into();
                profile.threads.push(Thread { process, tid, name, is_main, interpreter });
            }
            Kind::ThreadName => {
                let thread = profile.threads.get_mut(contents.number()? as usize)?;
                thread.name = contents.text()?.into();
            }
            Kind::Tally => {
                let thread = ThreadId(contents.number()?);
                profile.threads.get(thread.0 as usize)?;
                let stack = StackId(contents.number()?);
                profile.stacks.get(stack.0 as usize)?;
                let state = State::from_bits(contents.number()?)?;
                let number = contents.number()?;
                let sample = Sample {
                    thread,
                    stack,
                    state,
                    count: contents.long()?,
                    weight_ns: contents.long()?,
                    cpu_ns: contents.long()?,
                };
                let samples = profile.meta.samples.checked_add(sample.count);
                profile.meta.samples = samples.filter(|&samples| samples <= MOST_SAMPLES)?;
                let next = profile.samples.len() as u32;
                let at = *self.samples.entry((thread, stack, state)).or_insert(next);
                self.sample_of.push((number, at));
                match profile.samples.get_mut(at as usize) {
                    Some(known) => known.add(&sample),
                    None => profile.samples.push(sample),
                }
            }
        }
        Some(())
    }
}
