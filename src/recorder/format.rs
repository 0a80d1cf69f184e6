//! How a recording is laid out: a header with counters, then records that are only ever added.
//!
//! All numbers are little-endian. The header holds the magic, the version, and at fixed places
//! numbers that are stored anew as sampling goes on ([`counter`]). A record is a word with its
//! [`Kind`] in the low 8 bits and the length of its contents above, a checksum of what of it never
//! changes, the contents, and zeros up to a multiple of 8 bytes. The word is written last, so a
//! record that is not whole reads as the end. Texts are their length in bytes and UTF-8; references
//! count the records of the other kind from 0, and go backwards only.

use crate::profile::{Frame, FunctionId, Location, Opcode, Process};

/// What a recording begins with.
pub const MAGIC: [u8; 8] = *b"\x89pysamp\n";
/// Where the version is.
pub const VERSION_AT: usize = 8;
/// The version that is written, and read.
pub const VERSION: u32 = 4;
/// Where the records begin.
pub const HEADER_BYTES: usize = 128;
/// What stands before a record's contents.
pub const HEAD_BYTES: usize = 8;
/// A process makes no larger recording; of one that is read, the timeline may be longer.
pub const MOST_BYTES: usize = 256 << 20;
/// Longer texts are cut.
pub const MOST_TEXT: usize = 16 << 10;

/// Where the header's numbers are, each of 64 bits. Those from [`TICKS`](counter::TICKS) to
/// [`DURATION_NS`](counter::DURATION_NS) are stored together.
pub mod counter {
    /// How many bytes there were up to the last record.
    pub const USED: usize = 16;
    /// `Meta::ticks`.
    pub const TICKS: usize = 24;
    /// `Meta::missed`.
    pub const MISSED: usize = 32;
    /// `Meta::failed`.
    pub const FAILED: usize = 40;
    /// `Meta::duration_ns`.
    pub const DURATION_NS: usize = 48;
    /// 1 if recording had to end early for want of room.
    pub const FULL: usize = 56;
    /// `Meta::samples`, for who looks on meanwhile.
    pub const SAMPLES: usize = 64;
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Process id, that of its parent, number of arguments (32 bits), start and interval in
    /// nanoseconds (64 bits), program, Python, arguments (texts).
    Meta = 1,
    /// First line (32 bits), file, name (texts).
    Function = 2,
    /// Function, line, last line, column, column after the last, instruction, and the
    /// [bits](Opcode::bits) of its opcode or 0 (32 bits).
    Frame = 3,
    /// Parent, or [`NO_PARENT`], and frame (32 bits).
    Stack = 4,
    /// Process, kernel id, whether it is the main one (32 bits), interpreter (64 bits).
    Thread = 5,
    /// Thread (32 bits), name (text) and room for a longer one. The last one counts.
    ThreadName = 6,
    /// Thread, stack, state, own number (32 bits); count, nanoseconds, nanoseconds of CPU time (64 bits),
    /// which are stored anew.
    Tally = 7,
    /// A block of the [timeline](crate::profile::timeline), to which entries are added. One is full before
    /// the next one is begun; the last ones may be empty.
    Moments = 8,
    /// Of a profile of several processes, each: as [`Meta`](Self::Meta), with the length of
    /// sampling in nanoseconds in place of the interval. Without one there is the one that
    /// [`Meta`](Self::Meta) tells of.
    Process = 9,
}

/// The parent of a stack that has none.
pub const NO_PARENT: u32 = u32::MAX;

/// Where a tally's contents have the numbers that change.
pub const TALLY_NUMBERS: usize = 16;

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Function,
        Self::Frame,
        Self::Stack,
        Self::Thread,
        Self::ThreadName,
        Self::Tally,
        Self::Moments,
        Self::Process,
    ];

    /// A record's first word.
    pub fn word(self, length: usize) -> u32 {
        (length as u32) << 8 | self as u32
    }

    /// The kind and length in a record's first word.
    pub fn of_word(word: u32) -> Option<(Self, usize)> {
        let kind = Self::ALL.into_iter().find(|kind| *kind as u32 == word & 0xFF)?;
        Some((kind, (word >> 8) as usize))
    }

    /// The checksum of a record: FNV-1a of its first word and of what of its contents never changes.
    pub fn checksum(self, contents: &[u8]) -> u32 {
        let fixed = match self {
            Self::ThreadName => 4,
            Self::Tally => TALLY_NUMBERS,
            Self::Moments => 0,
            _ => contents.len(),
        };
        let word = self.word(contents.len()).to_le_bytes();
        let bytes = word.iter().chain(&contents[..fixed.min(contents.len())]);
        bytes.fold(0x811C_9DC5, |sum, &byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

/// The bytes that a record's contents take.
pub fn padded(length: usize) -> usize {
    length.next_multiple_of(8)
}

/// Appends a number.
pub fn put(contents: &mut Vec<u8>, number: u32) {
    contents.extend_from_slice(&number.to_le_bytes());
}

/// Appends a number.
pub fn put_long(contents: &mut Vec<u8>, number: u64) {
    contents.extend_from_slice(&number.to_le_bytes());
}

/// Appends a text.
pub fn put_text(contents: &mut Vec<u8>, text: &str) {
    let text = cut(text);
    put(contents, text.len() as u32);
    contents.extend_from_slice(text.as_bytes());
}

/// Appends a frame, `function` being the number of its record.
pub fn put_frame(contents: &mut Vec<u8>, frame: &Frame) {
    let Frame { function, location: at, instruction, opcode } = frame;
    let opcode = opcode.map_or(0, Opcode::bits);
    for number in [function.0, at.line, at.end_line, at.column, at.end_column] {
        put(contents, number);
    }
    put(contents, *instruction as u32);
    put(contents, opcode.into());
}

/// Appends what a process is, `ns` standing where records of it differ.
pub fn put_process(contents: &mut Vec<u8>, process: &Process, ns: u64) {
    put(contents, process.pid);
    put(contents, process.parent_pid);
    put(contents, process.command.len() as u32);
    put_long(contents, process.start_unix_ns);
    put_long(contents, ns);
    put_text(contents, &process.program);
    put_text(contents, &process.python);
    process.command.iter().for_each(|word| put_text(contents, word));
}

/// As much of a text as is kept.
pub fn cut(text: &str) -> &str {
    let mut end = text.len().min(MOST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Takes a record's contents apart; `None` where they end too early.
pub struct Contents<'a>(pub &'a [u8]);

impl<'a> Contents<'a> {
    /// The next number.
    pub fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    /// The next number of 64 bits.
    pub fn long(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    /// A process, without the length of sampling, and the number that stands for something else.
    pub fn process(&mut self) -> Option<(Process, u64)> {
        let (pid, parent_pid, words) = (self.number()?, self.number()?, self.number()?);
        let (start_unix_ns, ns) = (self.long()?, self.long()?);
        let (program, python) = (self.text()?, self.text()?);
        let command = (0..words).map_while(|_| self.text()).collect();
        let process =
            Process { pid, parent_pid, program, command, python, start_unix_ns, duration_ns: 0 };
        Some((process, ns))
    }

    /// The next frame.
    pub fn frame(&mut self) -> Option<Frame> {
        Some(Frame {
            function: FunctionId(self.number()?),
            location: Location {
                line: self.number()?,
                end_line: self.number()?,
                column: self.number()?,
                end_column: self.number()?,
            },
            instruction: self.number()? as i32,
            opcode: match self.number()? {
                0 => None,
                bits => Some(Opcode::from_bits(u16::try_from(bits).ok()?)?),
            },
        })
    }

    /// The next text; what is no UTF-8 becomes U+FFFD.
    pub fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}
