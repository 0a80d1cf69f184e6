//! Code objects: what they are called, and proof that a cached one is still the same.
//!
//! The cache is keyed by address, but an address is reused as soon as a code object dies. So every
//! hit is proved again: by `co_version` where it exists (3.12 on: no two code objects get the
//! same), else by comparing the names' own characters.

use std::collections::{BTreeMap, HashMap};

use super::bytecode::{Bytecode, UNIT_BYTES, bytecode_start};
use super::line_table::{self, Location};
use super::{Torn, strings};
use crate::hash::{FastHash, fingerprint};
use crate::layout::opcodes::Opcode;
use crate::layout::{CodeIdentity, FrameSize, Instruction, Layout, Version};
use crate::mem::{Address, Memory, PAGE, Piece, field, word_at, word32_at};

/// A code object by content: recreated ones are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeId(pub u32);

impl CodeId {
    /// Code of the interpreter's own, which belongs in no stack.
    pub const INTERPRETERS: Self = Self(u32::MAX);
}

/// A code object and the instruction it is at, in code units; -1 before its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Located {
    /// The code object.
    pub code: CodeId,
    /// The instruction.
    pub index: i32,
    /// What it is, if that was asked for and could be told.
    pub opcode: Option<Opcode>,
}

impl Located {
    /// A place in a code object, whatever the instruction there.
    pub fn new(code: CodeId, index: i32) -> Self {
        Self { code, index, opcode: None }
    }

    /// Whether it is the same place, whatever the instruction there.
    pub fn is_at(&self, other: &Self) -> bool {
        (self.code, self.index) == (other.code, other.index)
    }
}

/// What is kept of a code object; the object itself may be long gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// `co_filename`.
    pub file: Box<str>,
    /// `co_qualname`, or `co_name` before 3.11.
    pub name: Box<str>,
    /// `co_firstlineno`.
    pub first_line: u32,
    /// The line table, in the version's own format.
    pub line_table: Box<[u8]>,
}

impl Code {
    /// Whether it is no function's but what the interpreter itself puts between two: under an
    /// `__init__` that it calls inline (`_Py_InitCleanup` in `Python/specialize.c`, 3.13 on), and
    /// where C code calls Python (`INTERPRETER_TRAMPOLINE_CODEDEF` in `Python/pylifecycle.c`, 3.12
    /// on), should its frame not be told by its owner. Python's own `f_back` leaves them out.
    fn is_interpreters(&self) -> bool {
        match (&*self.file, &*self.name) {
            ("__init__", "__init__") => self.first_line == 0,
            ("<shim>", "<interpreter trampoline>") => true,
            _ => false,
        }
    }
}

/// A code object that was found to be what the cache says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Its content.
    pub id: CodeId,
    /// How many code units its bytecode has.
    pub units: u32,
    /// How long its frames are in the data stack, in bytes. `None` where they lie elsewhere: before 3.11, and those
    /// of generators and coroutines.
    pub frame_bytes: Option<u32>,
}

/// How many addresses are remembered before all are forgotten: programs that make code without end
/// must not fill the memory.
const MOST_ADDRESSES: usize = 1 << 16;
/// How many distinct code objects are kept in all.
const MOST_CODES: usize = 1 << 18;
/// Most bytes that are kept of them: names can be long, and tables longer.
const MOST_CODE_BYTES: usize = 128 << 20;
/// Largest bytecode that is believed, in code units.
const MOST_UNITS: u64 = 1 << 24;
/// How far before an instruction the head of its code object is looked for.
const SEARCHED: usize = 2048;
/// How much of a name is compared to prove that a code object is the same.
const COMPARED: usize = 96;

struct Cached {
    proven: Proven,
    version: u32,
    head: u64,
    contents: u64,
    names: [Address; 3],
    /// As [`Bytecode::steps_back`], once that was asked for.
    steps_back: Option<Box<[u8]>>,
}

/// The cache and the codes behind it.
pub struct CodeTable {
    layout: Layout,
    code_type: Address,
    /// The interpreter's version, if instructions are asked for.
    opcodes: Option<Version>,
    by_address: HashMap<Address, Cached, FastHash>,
    /// Where each cached code object's bytecode begins, where that is inside the object.
    by_bytecode: BTreeMap<Address, Address>,
    by_content: HashMap<Code, CodeId>,
    /// Where code of the interpreter's own was seen.
    interpreters: Vec<Address>,
    codes: Vec<Code>,
    garbage_collection: Option<CodeId>,
    code_bytes: usize,
    /// The highest version that was found twice; `None` if versions tell nothing.
    newest: Option<u32>,
    reads: u64,
    newcomers: u64,
}

impl CodeTable {
    /// An empty table for code objects whose type is at `code_type`.
    pub fn new(layout: Layout, code_type: Address) -> Self {
        Self {
            layout,
            code_type,
            opcodes: None,
            by_address: HashMap::default(),
            by_bytecode: BTreeMap::new(),
            by_content: HashMap::new(),
            interpreters: Vec::new(),
            codes: Vec::new(),
            garbage_collection: None,
            code_bytes: 0,
            newest: Some(0),
            reads: 0,
            newcomers: 0,
        }
    }

    /// From now on, [`opcode`](Self::opcode) tells of the instructions of this version.
    pub fn tell_opcodes(&mut self, version: Version) {
        self.opcodes = Some(version);
    }

    /// Whether it does.
    pub fn tells_opcodes(&self) -> bool {
        self.opcodes.is_some()
    }

    /// The instruction that a frame is at whose code object was found at an address; the copy of the
    /// bytecode is the frame's. `None` before the first one, where another code object may be
    /// there by now, and unless it was asked for.
    pub fn opcode(
        &mut self,
        memory: &impl Memory,
        at: Address,
        copy: u32,
        frame: Located,
    ) -> Option<Opcode> {
        let version = self.opcodes?;
        let index = u32::try_from(frame.index).ok()?;
        let cached = self.by_address.get(&at).filter(|known| known.proven.id == frame.code)?;
        let start = bytecode_start(memory, &self.layout, at, copy).ok()?;
        let bytecode = Bytecode { version, code: at, start, units: cached.proven.units };
        let made = match &cached.steps_back {
            None if self.layout.stands_in_caches() => {
                Some(bytecode.steps_back(memory, &self.layout)?)
            }
            _ => None,
        };
        let steps_back = made.as_ref().or(cached.steps_back.as_ref());
        let back = match steps_back {
            Some(steps_back) => *steps_back.get(index as usize)?,
            None => 0,
        };
        let opcode = bytecode.opcode(memory, index.checked_sub(back.into())?)?;
        // All of it was read of the code object that was there before if that is there now.
        if !self.is_same(memory, at, cached).ok()? {
            return None;
        }
        if made.is_some()
            && let Some(cached) = self.by_address.get_mut(&at)
        {
            cached.steps_back = made;
        }
        Some(opcode)
    }

    /// What is kept of a code object.
    pub fn code(&self, id: CodeId) -> Option<&Code> {
        self.codes.get(id.0 as usize)
    }

    /// How many distinct code objects were seen.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether none was seen yet.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// Whether it is time to [`clear`](Self::clear) the table, if that is possible at all.
    pub fn is_half_full(&self) -> bool {
        self.codes.len() > MOST_CODES / 2 || self.code_bytes > MOST_CODE_BYTES / 2
    }

    /// Forgets everything that was kept; ids that were given are of no more use.
    pub fn clear(&mut self) {
        let Self { opcodes, newest, .. } = *self;
        *self = Self { opcodes, newest, ..Self::new(self.layout.clone(), self.code_type) };
    }

    /// Source location of an instruction of a code object.
    pub fn locate(&self, id: CodeId, index: i32) -> Location {
        self.code(id).map_or_else(Location::default, |code| {
            line_table::locate(self.layout.line_table, &code.line_table, code.first_line, index)
        })
    }

    /// Stands for something that is no code object. `None` if the table is full.
    pub fn synthetic(&mut self, file: &str, name: &str) -> Option<CodeId> {
        let line_table = Box::default();
        self.intern(Code { file: file.into(), name: name.into(), first_line: 0, line_table })
    }

    /// Stands for a garbage collection, on top of the stack that it interrupts.
    pub fn garbage_collection(&mut self) -> Option<CodeId> {
        if self.garbage_collection.is_none() {
            self.garbage_collection = self.synthetic("~", "<GC>");
        }
        self.garbage_collection
    }

    /// The code object at an address: from the cache if that is proved to be still right, else
    /// read anew.
    pub fn resolve(&mut self, memory: &impl Memory, at: Address) -> Result<Proven, Torn> {
        if let Some(cached) = self.by_address.get(&at)
            && self.is_same(memory, at, cached)?
        {
            // What was found once may not have been complete.
            self.newest = self.newest.map(|newest| newest.max(cached.version));
            return Ok(cached.proven);
        }
        self.reads += 1;
        let read = self.read(memory, at);
        let version = read.map_or(0, |_| self.by_address.get(&at).map_or(0, |it| it.version));
        self.newcomers += u64::from(version == 0 || version > self.newest.unwrap_or(0));
        read
    }

    /// The code object at an address, if it was met there and still is there.
    pub fn known(&self, memory: &impl Memory, at: Address) -> Option<Proven> {
        let cached = self.by_address.get(&at)?;
        (self.is_same(memory, at, cached) == Ok(true)).then_some(cached.proven)
    }

    /// How often a code object was not the one that had been at its address before.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// How many of those may have come to their address a moment before.
    ///
    /// One of a lower version than another that was there earlier has been there for longer than that:
    /// an interpreter counts its code objects as it makes them (`init_code` in
    /// `Objects/codeobject.c`, 3.12 on).
    pub fn newcomers(&self) -> u64 {
        self.newcomers
    }

    /// Forgets which code object lies where, as there is an interpreter that was not there before.
    /// Each may count its code objects' versions from the start: of several they tell nothing.
    pub fn begin_interpreter(&mut self, is_only_one: bool) {
        self.forget_addresses();
        self.newest = is_only_one.then_some(0);
    }

    /// Forgets which code object lies where; what is kept of them stays.
    pub fn forget_addresses(&mut self) {
        self.by_address.clear();
        self.by_bytecode.clear();
        self.interpreters.clear();
    }

    /// Whether code that was resolved before is the interpreter's own, and still lies there.
    pub fn is_interpreters(&mut self, memory: &impl Memory, at: Address) -> bool {
        self.interpreters.contains(&at)
            && self.resolve(memory, at).is_ok_and(|proven| proven.id == CodeId::INTERPRETERS)
    }

    /// The code object into whose bytecode an instruction pointer points, where that is inside the
    /// object.
    pub fn at_instruction(&self, memory: &impl Memory, instruction: Address) -> Option<Address> {
        // The pointer may be at the unit before the first.
        let before = self.by_bytecode.range(..=instruction.saturating_add(UNIT_BYTES)).next_back();
        let known = before.and_then(|(&start, &at)| {
            let units = u64::from(self.by_address.get(&at)?.proven.units);
            (instruction < start.saturating_add(units * UNIT_BYTES)).then_some(at)
        });
        known.or_else(|| self.before_instruction(memory, instruction))
    }

    /// The same for one that is not known yet: its head is not far before its bytecode.
    fn before_instruction(&self, memory: &impl Memory, instruction: Address) -> Option<Address> {
        const WORD: u64 = 8;
        let layout = &self.layout;
        let nearest = instruction.checked_sub(layout.code_instructions as u64)? & !(WORD - 1);
        let last = nearest.checked_add(layout.object_type as u64)?;
        let end = last.checked_add(WORD)?;
        let page = last & !(PAGE - 1);
        let mut bytes = [0; SEARCHED];
        // The page before may not be there.
        let from =
            [last.saturating_sub(SEARCHED as u64 - WORD), page].into_iter().find(|&from| {
                let length = (end - from) as usize;
                bytes.get_mut(..length).is_some_and(|bytes| memory.read(from, bytes).is_ok())
            })?;
        (from..=last)
            .rev()
            .step_by(WORD as usize)
            .filter(|&type_at| word_at(&bytes, (type_at - from) as usize) == self.code_type)
            .map(|type_at| type_at.wrapping_sub(layout.object_type as u64))
            .find(|&at| {
                let units = memory.word(field(at, layout.object_size)).unwrap_or(0);
                let start = field(at, layout.code_instructions);
                units <= MOST_UNITS && instruction.wrapping_sub(start) < units * UNIT_BYTES
            })
    }

    fn is_same(&self, memory: &impl Memory, at: Address, cached: &Cached) -> Result<bool, Torn> {
        match self.layout.code_identity {
            CodeIdentity::Version(offset) if cached.version != 0 => {
                Ok(memory.word32(field(at, offset))? == cached.version)
            }
            _ => {
                let mut head = [0; HEAD_BYTES];
                let head = &mut head[..self.layout.code_bytes().min(HEAD_BYTES)];
                memory.read(at, head)?;
                Ok(self.head_fingerprint(head) == cached.head
                    && self.contents_fingerprint(memory, &cached.names)? == cached.contents)
            }
        }
    }

    /// Everything in a code object's head that never changes during its life.
    fn head_fingerprint(&self, head: &[u8]) -> u64 {
        let layout = &self.layout;
        fingerprint([
            word_at(head, layout.object_type),
            word_at(head, layout.code_filename),
            word_at(head, layout.code_name),
            layout.code_qualname.map_or(0, |offset| word_at(head, offset)),
            word_at(head, layout.code_line_table),
            word32_at(head, layout.code_first_line).into(),
        ])
    }

    /// The first characters of file name, name and line table, with their lengths: the pointers
    /// alone prove nothing, as a dead object's strings leave their addresses to the next one's.
    fn contents_fingerprint(
        &self,
        memory: &impl Memory,
        objects: &[Address; 3],
    ) -> Result<u64, Torn> {
        let [file, name, table] = *objects;
        let layout = &self.layout;
        let mut lengths = [[0; 8]; 3];
        let mut bytes = [[0; COMPARED]; 3];
        let [file_length, name_length, table_length] = &mut lengths;
        memory.read_pieces(&mut [
            Piece { from: field(file, layout.str_length), into: file_length },
            Piece { from: field(name, layout.str_length), into: name_length },
            Piece { from: field(table, layout.bytes_size), into: table_length },
        ])?;
        let starts = [layout.str_ascii_data, layout.str_ascii_data, layout.bytes_data];
        let mut words = [0; 3 * (COMPARED / 8 + 1)];
        let mut at = 0;
        for index in 0..3 {
            let length = u64::from_ne_bytes(lengths[index]);
            let compared = usize::try_from(length).map_or(COMPARED, |length| length.min(COMPARED));
            let into = &mut bytes[index][..compared];
            memory.read(field(objects[index], starts[index]), into)?;
            words[at] = length;
            at += 1;
            for chunk in bytes[index].chunks_exact(8) {
                words[at] = word_at(chunk, 0);
                at += 1;
            }
        }
        Ok(fingerprint(words))
    }

    fn read(&mut self, memory: &impl Memory, at: Address) -> Result<Proven, Torn> {
        let layout = self.layout.clone();
        let layout = &layout;
        let mut head = vec![0; layout.code_bytes()];
        memory.read(at, &mut head)?;
        if word_at(&head, layout.object_type) != self.code_type {
            return Err(Torn);
        }
        let file_at = word_at(&head, layout.code_filename);
        let name_at = word_at(&head, layout.code_qualname.unwrap_or(layout.code_name));
        let table_at = word_at(&head, layout.code_line_table);
        let names = [file_at, name_at, table_at];
        let units = match layout.instruction {
            Instruction::Pointer => word_at(&head, layout.object_size),
            _ => {
                let bytecode = memory.word(field(at, layout.code_instructions))?;
                memory.word(field(bytecode, layout.bytes_size))? / 2
            }
        };
        if units > MOST_UNITS {
            return Err(Torn);
        }
        let code = Code {
            file: strings::text(memory, layout, file_at)?,
            name: strings::text(memory, layout, name_at)?,
            first_line: word32_at(&head, layout.code_first_line),
            line_table: strings::bytes(memory, layout, table_at)?,
        };
        let version = |head: &[u8]| match layout.code_identity {
            CodeIdentity::Version(offset) => word32_at(head, offset),
            CodeIdentity::Contents => 0,
        };
        // Versions run out in the end.
        let contents = match version(&head) {
            0 => self.contents_fingerprint(memory, &names)?,
            _ => 0,
        };
        // Read the head again: what was collected in between belongs to one object only if it is
        // still the same.
        let mut again = vec![0; head.len()];
        memory.read(at, &mut again)?;
        let head_print = self.head_fingerprint(&head);
        if self.head_fingerprint(&again) != head_print || version(&again) != version(&head) {
            return Err(Torn);
        }
        let version = version(&head);
        let id = self.intern(code).ok_or(Torn)?;
        let frame_bytes = frame_bytes(layout, &head);
        let proven = Proven { id, units: units as u32, frame_bytes };
        if self.by_address.len() >= MOST_ADDRESSES {
            self.forget_addresses();
        }
        let steps_back = None;
        let cached = Cached { proven, version, head: head_print, contents, names, steps_back };
        self.by_address.insert(at, cached);
        if id == CodeId::INTERPRETERS && !self.interpreters.contains(&at) {
            self.interpreters.push(at);
        }
        if layout.instruction == Instruction::Pointer {
            self.by_bytecode.insert(field(at, layout.code_instructions), at);
        }
        Ok(proven)
    }

    fn intern(&mut self, code: Code) -> Option<CodeId> {
        if let Some(&id) = self.by_content.get(&code) {
            return Some(id);
        }
        if code.is_interpreters() {
            return Some(CodeId::INTERPRETERS);
        }
        // It is kept twice, as what is looked for and as what is found.
        let bytes = 2 * (code.file.len() + code.name.len() + code.line_table.len());
        if self.codes.len() >= MOST_CODES || self.code_bytes + bytes > MOST_CODE_BYTES {
            return None;
        }
        self.code_bytes += bytes;
        let id = CodeId(self.codes.len() as u32);
        self.codes.push(code.clone());
        self.by_content.insert(code, id);
        Some(id)
    }
}

/// As in [`Proven`], of a code object that begins so.
fn frame_bytes(layout: &Layout, head: &[u8]) -> Option<u32> {
    /// `CO_GENERATOR`, `CO_COROUTINE`, `CO_ASYNC_GENERATOR` (`cpython/code.h`).
    const ELSEWHERE: u32 = 0x20 | 0x80 | 0x200;
    let FrameSize { frame_locals, code_locals, code_stack_size } = layout.frame_size?;
    let words = word32_at(head, code_locals).checked_add(word32_at(head, code_stack_size))?;
    let is_in_data_stack = word32_at(head, layout.tasks.code_flags) & ELSEWHERE == 0;
    words.checked_mul(8)?.checked_add(frame_locals as u32).filter(|_| is_in_data_stack)
}

/// At least as long as any version's head up to the fields that are read.
const HEAD_BYTES: usize = 192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tables;
    use crate::reader::testing::World;

    /// How many of code objects with these versions, met in this order, may have come just before.
    fn newcomers(codes: &mut CodeTable, world: &mut World, versions: &[u32]) -> u64 {
        let layout = world.layout.clone();
        let CodeIdentity::Version(version_at) = layout.code_identity else { return 0 };
        let text = world.string("name");
        let no_bytes = world.place(&[]);
        let code = |version: u32| {
            [
                (layout.object_type, codes.code_type),
                (version_at, u64::from(version)),
                (layout.code_filename, text),
                (layout.code_qualname.unwrap_or(layout.code_name), text),
                (layout.code_line_table, no_bytes),
            ]
        };
        let places: Vec<Address> = versions.iter().map(|&it| world.place(&code(it))).collect();
        let image = world.image(0);
        let before = codes.newcomers();
        places.iter().for_each(|&at| assert!(codes.resolve(&image, at).is_ok()));
        // Those that are known are not new.
        let after = codes.newcomers();
        places.iter().for_each(|&at| assert!(codes.resolve(&image, at).is_ok()));
        assert_eq!(codes.newcomers(), after);
        after - before
    }

    #[test]
    fn code_of_a_lower_version_than_was_seen_is_old() {
        let mut world = World::new(tables::V3_12.clone());
        let code_type = world.place(&[]);
        let mut codes = CodeTable::new(world.layout.clone(), code_type);
        assert_eq!(newcomers(&mut codes, &mut world, &[7, 3]), 2);
        assert_eq!(newcomers(&mut codes, &mut world, &[5, 9, 8]), 2);
        // Versions that have run out.
        assert_eq!(newcomers(&mut codes, &mut world, &[0, 0]), 2);
        codes.clear();
        assert_eq!(newcomers(&mut codes, &mut world, &[4, 10]), 1);
        codes.begin_interpreter(true);
        assert_eq!(newcomers(&mut codes, &mut world, &[2]), 1);
        assert_eq!(newcomers(&mut codes, &mut world, &[1, 3]), 1);
        codes.begin_interpreter(false);
        assert_eq!(newcomers(&mut codes, &mut world, &[20]), 1);
        assert_eq!(newcomers(&mut codes, &mut world, &[19]), 1);
    }
}
