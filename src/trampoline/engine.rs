//! Trampolines at work: switching them on and off, and finding or making the stub of a function.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use libc::{c_int, c_void};

use super::entry::{self, HOT};
use super::lock::{ForkLock, Held};
use super::python::Python;
use super::side::{NAMELESS, Side, Sink, Writer};
use super::table::Keys;
use super::{Backend, Entry, Refusal};
use crate::layout::CodeIdentity;
use crate::layout::detect::Symbols;
use crate::mem::{Address, Blocks, KernelMemory, Memory, field};
use crate::os::process;
use crate::os::thread::BlockedSignals;
use crate::reader::codes::{Code, CodeId, CodeTable};
use crate::reader::frame::REFERENCE_FLAGS;
use crate::reader::self_check;

/// The CPython of this process, once it was found; never freed. No lock guards it, which a fork could
/// leave locked for ever.
static PYTHON: AtomicPtr<Python> = AtomicPtr::new(std::ptr::null_mut());

static ENGINE: ForkLock<Option<Engine>> = ForkLock::new(None);

/// What the pending call is to do: see [`wish`].
static WISH: AtomicU32 = AtomicU32::new(wish::NOTHING);

/// Whether a child that was forked has to write files of its own.
static NEEDS_FILES: AtomicBool = AtomicBool::new(false);

/// Whether frames are hooked, as far as is known without a lock.
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Whether frames have ever been hooked.
static HAS_BEGUN: AtomicBool = AtomicBool::new(false);

/// Whether a fork under way has the lock.
static LOCKED_FOR_FORK: AtomicBool = AtomicBool::new(false);

mod wish {
    pub(super) const NOTHING: u32 = 0;
    pub(super) const MAP: u32 = 1;
    pub(super) const JIT_DUMP: u32 = 2;
    pub(super) const OFF: u32 = 3;
}

struct Engine {
    python: &'static Python,
    /// None until the first code object was seen.
    codes: Option<CodeTable>,
    nameless: Code,
    keys: Keys,
    /// Where code objects are marked, once that is known.
    mark: Option<isize>,
    /// Whether the end of the interpreter will be heard of.
    hears_of_end: bool,
    backend: Option<Backend>,
    /// What each backend has, once it was taken up.
    sides: [Option<Side>; Backend::ALL.len()],
    /// The process whose files are written.
    pid: u32,
}

fn find(symbols: &Symbols, code_type: Option<Address>) -> Result<&'static Python, Refusal> {
    if !entry::IS_AVAILABLE {
        return Err(Refusal::Processor);
    }
    if let Some(python) = found() {
        return Ok(python);
    }
    let python: &Python = Box::leak(Box::new(Python::find(symbols, code_type)?));
    PYTHON.store(std::ptr::from_ref(python).cast_mut(), Ordering::Release);
    Ok(python)
}

fn found() -> Option<&'static Python> {
    // SAFETY: the pointer is null or that of a value that was leaked.
    unsafe { PYTHON.load(Ordering::Acquire).as_ref() }
}

/// Switches trampolines on, or over to another backend. A caller that holds the GIL has that done
/// before this returns. For others it is done as soon as the main thread runs Python code, and what
/// may go wrong then is in [`complaint`].
pub fn activate(
    symbols: &Symbols,
    code_type: Option<Address>,
    backend: Backend,
) -> Result<(), Refusal> {
    activate_in(find(symbols, code_type)?, backend)
}

/// As [`activate`], where they were switched on before in this process or in that of which it is a fork;
/// `None` where they were not. In a forked child the loader's list of libraries, by which Python is found, may
/// be locked for ever.
pub fn activate_again(backend: Backend) -> Option<Result<(), Refusal>> {
    found().map(|python| activate_in(python, backend))
}

fn activate_in(python: &'static Python, backend: Backend) -> Result<(), Refusal> {
    if !is_within_reach(python) {
        return Err(Refusal::NoPython);
    }
    switch(python, Some(backend))
}

/// Whether pending calls can be left for the interpreter, or this thread holds the GIL: from 3.15 on
/// `site` is imported, and what it imports, before the interpreter counts as initialized.
fn is_within_reach(python: &Python) -> bool {
    python.is_initialized() || python.is_attached(&KernelMemory::of_this_thread())
}

/// As [`activate`], where Python code is known to run, though the interpreter may not have started up.
pub fn activate_early(
    symbols: &Symbols,
    code_type: Option<Address>,
    backend: Backend,
) -> Result<(), Refusal> {
    /// From here on an interpreter that is told to switch on trampolines of its own does not start
    /// where it finds others.
    const FIRST_WITH_ITS_OWN: u8 = 12;
    let python = find(symbols, code_type)?;
    if python.build.version.minor >= FIRST_WITH_ITS_OWN && !python.is_initialized() {
        return Err(Refusal::NoPython);
    }
    switch(python, Some(backend))
}

/// Switches them off; as [`activate`]. Functions that are running go on through their stubs.
pub fn deactivate() -> Result<(), Refusal> {
    match found() {
        Some(python) if is_within_reach(python) => switch(python, None),
        _ => Err(Refusal::NotActive),
    }
}

/// Whether trampolines have ever been switched on in this process, or in that of which it is a fork.
pub fn has_begun() -> bool {
    HAS_BEGUN.load(Ordering::Relaxed)
}

fn switch(python: &'static Python, backend: Option<Backend>) -> Result<(), Refusal> {
    let memory = KernelMemory::of_this_thread();
    if !python.is_alive(&memory) {
        return Err(Refusal::NoPython);
    }
    if python.is_attached(&memory) {
        return switch_now(python, &memory, backend);
    }
    let ours = hook_of(python);
    let there = python.hook(&memory).ok_or(Refusal::NoPython)?;
    match backend {
        Some(_) if there != ours && there != python.evaluate => return Err(Refusal::OtherHook),
        None if there != ours => return Err(Refusal::NotActive),
        _ => {}
    }
    let wished = match backend {
        Some(Backend::Map) => wish::MAP,
        Some(Backend::JitDump) => wish::JIT_DUMP,
        None => wish::OFF,
    };
    // One pending call does what was wished for last.
    let is_under_way = WISH.swap(wished, Ordering::SeqCst) != wish::NOTHING;
    if !is_under_way && !python.call_soon(on_pending_call) {
        WISH.store(wish::NOTHING, Ordering::SeqCst);
        return Err(Refusal::Busy);
    }
    Ok(())
}

/// Made with the GIL held, between two instructions of the main thread.
extern "C" fn on_pending_call(_: *mut c_void) -> c_int {
    let _ = std::panic::catch_unwind(|| {
        let backend = match WISH.swap(wish::NOTHING, Ordering::SeqCst) {
            wish::MAP => Some(Backend::Map),
            wish::JIT_DUMP => Some(Backend::JitDump),
            wish::OFF => None,
            _ => return,
        };
        let Some(python) = found() else { return };
        let memory = KernelMemory::of_this_thread();
        if let Err(refusal) = switch_now(python, &memory, backend) {
            complain(&refusal);
        }
    });
    0
}

fn hook_of(python: &Python) -> u64 {
    entry::hook(python.build.version.minor)
}

/// With the GIL.
fn switch_now(
    python: &'static Python,
    memory: &KernelMemory,
    backend: Option<Backend>,
) -> Result<(), Refusal> {
    let ours = hook_of(python);
    let there = python.hook(memory).ok_or(Refusal::NoPython)?;
    let Some(backend) = backend else {
        if there != ours {
            return Err(Refusal::NotActive);
        }
        ACTIVE.store(false, Ordering::Relaxed);
        return set_hook(python, memory, python.evaluate);
    };
    if there != ours && there != python.evaluate {
        return Err(Refusal::OtherHook);
    }
    {
        let (_signals, mut engine) = locked();
        let engine = match &mut *engine {
            Some(engine) => engine,
            none => none.insert(Engine::new(python)),
        };
        engine.begin(backend)?;
    }
    ACTIVE.store(true, Ordering::Relaxed);
    HAS_BEGUN.store(true, Ordering::Relaxed);
    // Without the lock: CPython may wait for all threads, and some may wait for the lock.
    if there == ours { Ok(()) } else { set_hook(python, memory, ours) }
}

fn set_hook(python: &Python, memory: &KernelMemory, function: u64) -> Result<(), Refusal> {
    let is_set = python.set_hook(memory, function) && python.hook(memory) == Some(function);
    if is_set {
        Ok(())
    } else {
        Err(Refusal::Unsupported("frames cannot be hooked here".to_owned()))
    }
}

/// The lock, and all signals blocked as long as it is held: a thread that a signal holds still must
/// have neither it nor the lock of the heap.
fn locked() -> (BlockedSignals, Held<'static, Option<Engine>>) {
    let signals = BlockedSignals::all();
    (signals, ENGINE.lock())
}

impl Engine {
    fn new(python: &'static Python) -> Self {
        let layout = &python.build.layout;
        let keys = match layout.code_identity {
            CodeIdentity::Version(offset) => {
                HOT.code_version.store(offset as u64, Ordering::Relaxed);
                Keys::Versions
            }
            CodeIdentity::Contents => Keys::Addresses,
        };
        HOT.frame_code.store(layout.frame_code as u64, Ordering::Relaxed);
        HOT.evaluate.store(python.evaluate, Ordering::Relaxed);
        entry::set_slow(stub_of_frame);
        let unknown = || Box::from("<unknown>");
        let line_table = Box::default();
        Self {
            python,
            codes: None,
            nameless: Code { file: unknown(), name: unknown(), first_line: 0, line_table },
            keys,
            mark: None,
            hears_of_end: false,
            backend: None,
            sides: [None, None],
            pid: process::pid(),
        }
    }

    /// Takes up a backend. With the GIL.
    fn begin(&mut self, backend: Backend) -> Result<(), Refusal> {
        let python = self.python;
        self.hears_of_end = self.hears_of_end || python.at_end(on_end);
        if !self.hears_of_end {
            let sentence = "too many tools wait for Python's end";
            return Err(Refusal::Unsupported(sentence.to_owned()));
        }
        if python.marks_code() && self.mark.is_none() {
            self.mark = python.request_mark(on_code_freed);
            if self.mark.is_none() {
                return Err(Refusal::Unsupported("too many tools mark Python's code".to_owned()));
            }
        }
        self.own_files();
        let side = &mut self.sides[backend as usize];
        if side.is_none() {
            *side = Some(Side::new(backend, self.keys).ok_or(Refusal::Memory)?);
        }
        let before = self.backend.replace(backend);
        // The next frame brings its own.
        HOT.table.store(0, Ordering::Release);
        self.tell_all().map_err(|error| {
            self.backend = before;
            Refusal::File(error.to_string())
        })
    }

    /// In a process that was forked, the files are the parent's.
    fn own_files(&mut self) {
        let pid = process::pid();
        if self.pid != pid {
            self.pid = pid;
            let writers = self.sides.iter_mut().flatten().map(|side| side.writer.take());
            // What they keep mapped or open is left as it is.
            writers.for_each(std::mem::forget);
        }
    }

    /// Stubs that have a name, and the nameless one.
    fn named(&self) -> u32 {
        1 + self.codes.as_ref().map_or(0, |codes| codes.len() as u32)
    }

    /// Of the backend that was taken up last.
    fn side(&mut self) -> Option<&mut Side> {
        self.sides[self.backend? as usize].as_mut()
    }

    /// Tells the backend of all stubs that it does not know, in any thread.
    fn tell_all(&mut self) -> io::Result<()> {
        let (named, pid, python) = (self.named(), self.pid, self.python);
        let (Some(backend), Some(side)) = (self.backend, self.side()) else { return Ok(()) };
        let mut writer = match side.writer.take() {
            Some(writer) => writer,
            None => Writer { sink: Sink::create(backend, pid, python)?, told: 0 },
        };
        let numbers = writer.told..named;
        let entries: Vec<Entry<'_>> = numbers.filter_map(|number| self.entry(number)).collect();
        let told = writer.sink.add_all(&entries);
        if told.is_ok() {
            writer.told = named;
        }
        self.put_back(writer);
        told
    }

    /// Tells the backend of the newest stub. With the GIL.
    fn tell(&mut self, number: u32) -> io::Result<()> {
        let Some(side) = self.side() else { return Ok(()) };
        match side.writer.take_if(|writer| writer.told == number) {
            Some(mut writer) => {
                let told = self.entry(number).map_or(Ok(()), |entry| writer.sink.add(&entry));
                writer.told = number + 1;
                self.put_back(writer);
                told
            }
            None => self.tell_all(),
        }
    }

    fn put_back(&mut self, writer: Writer) {
        if let Some(side) = self.side() {
            side.writer = Some(writer);
        }
    }

    fn entry(&self, number: u32) -> Option<Entry<'_>> {
        let address = self.sides[self.backend? as usize].as_ref()?.stubs.address(number);
        let code = match number {
            NAMELESS => &self.nameless,
            _ => self.codes.as_ref()?.code(CodeId(number - 1))?,
        };
        Some(Entry { address, number, code })
    }

    /// The stub of a frame's code object, and that code object if it is new to the table. `None` if
    /// what the frame leads to is none.
    fn stub(&mut self, memory: &impl Memory, frame: Address) -> Option<(u64, Option<Address>)> {
        let layout = &self.python.build.layout;
        let code = memory.word(field(frame, layout.frame_code)).ok()? & !REFERENCE_FLAGS;
        let version = match layout.code_identity {
            CodeIdentity::Version(offset) => memory.word32(field(code, offset)).ok()?,
            CodeIdentity::Contents => 0,
        };
        let key = self.keys.of(code, version);
        let known = self.side().and_then(|side| side.table.find(key?));
        let mut marked = None;
        let stub = match known {
            Some(stub) => stub,
            None => {
                let number = self.number(memory, code)?;
                let side = self.side()?;
                let stub = side.stubs.address(number);
                if let Some(key) = key {
                    side.table.insert(key, stub);
                    marked = Some(code);
                }
                stub
            }
        };
        HOT.table.store(self.side()?.table.address(), Ordering::Release);
        Some((stub, marked))
    }

    /// The number of a code object's stub, which is made and told of if there is none yet. `None`
    /// if it is no code object.
    fn number(&mut self, memory: &impl Memory, code: Address) -> Option<u32> {
        let python = self.python;
        let layout = &python.build.layout;
        let code_type = memory.word(field(code, layout.object_type)).ok()?;
        let codes = match &mut self.codes {
            Some(codes) => codes,
            none => {
                let is_it = match python.code_type {
                    Some(truth) => truth == code_type,
                    None => self_check::is_code_type(memory, layout, code_type),
                };
                if !is_it {
                    return None;
                }
                none.insert(CodeTable::new(layout.clone(), code_type))
            }
        };
        let before = codes.len();
        let number = match codes.resolve(memory, code) {
            Ok(proven) if proven.id != CodeId::INTERPRETERS => proven.id.0 + 1,
            _ => NAMELESS,
        };
        let side = self.side()?;
        if !side.stubs.make(number + 1) {
            return Some(NAMELESS);
        }
        let is_new = self.codes.as_ref().is_some_and(|codes| codes.len() > before);
        if is_new && let Err(error) = self.tell(number) {
            // Those that are not told of are told of with the next.
            complain(&Refusal::File(error.to_string()));
        }
        Some(number)
    }
}

/// The slow way of a frame: with the GIL, or attached, in any thread of the application's.
extern "C" fn stub_of_frame(frame: u64) -> u64 {
    let _errno = Errno::save();
    let attempt = || {
        let python = found()?;
        let memory = KernelMemory::of_this_thread();
        let (found, mark) = {
            let (_signals, mut engine) = locked();
            if NEEDS_FILES.swap(false, Ordering::SeqCst)
                && let Some(engine) = &mut *engine
            {
                engine.renew_files();
            }
            // The frame's code object lives, and stays as it is, until the call returns.
            let blocks = Blocks::of(&memory);
            let found = engine.as_mut().and_then(|engine| engine.stub(&blocks, frame));
            (found, engine.as_ref().and_then(|engine| engine.mark))
        };
        let Some((stub, marked)) = found else {
            decline(python, &memory);
            return None;
        };
        if let (Some(code), Some(mark)) = (marked, mark)
            && !python.mark(mark, code)
        {
            // Nobody would hear of its end.
            on_code_freed(code as *mut c_void);
        }
        Some(stub)
    };
    std::panic::catch_unwind(attempt).ok().flatten().unwrap_or(0)
}

/// A frame does not look as it should, or what is known was lost in a fork: frames are left alone.
fn decline(python: &Python, memory: &KernelMemory) {
    ACTIVE.store(false, Ordering::Relaxed);
    let _ = set_hook(python, memory, python.evaluate);
    let sentence = format!("{} is not laid out as expected; trampolines are off", python.build);
    complain(&Refusal::Unsupported(sentence));
}

/// A code object that was marked is about to be freed. With the GIL.
extern "C" fn on_code_freed(code: *mut c_void) {
    if let Some(engine) = &mut *ENGINE.lock()
        && let Some(key) = engine.keys.of(code as u64, 0)
    {
        engine.sides.iter_mut().flatten().for_each(|side| side.table.remove(key));
    }
}

/// The interpreter has ended. The next one has code of its own.
extern "C" fn on_end() {
    let (_signals, mut engine) = locked();
    HOT.table.store(0, Ordering::Release);
    ACTIVE.store(false, Ordering::Relaxed);
    WISH.store(wish::NOTHING, Ordering::SeqCst);
    if let Some(engine) = &mut *engine {
        engine.sides.iter_mut().flatten().for_each(|side| side.table.clear());
        engine.mark = None;
        engine.hears_of_end = false;
        if let Some(codes) = &mut engine.codes {
            codes.forget_addresses();
        }
    }
}

/// What went wrong, and nobody was told of yet.
static COMPLAINT: ForkLock<Option<String>> = ForkLock::new(None);

fn complain(refusal: &Refusal) {
    COMPLAINT.lock().get_or_insert_with(|| refusal.to_string());
}

/// What went wrong since this was last asked. Waits for nobody.
pub fn complaint() -> Option<String> {
    COMPLAINT.try_lock()?.take()
}

/// Before a fork: the child is to find everything whole.
pub fn before_fork() {
    let is_locked = ENGINE.lock_for_fork();
    LOCKED_FOR_FORK.store(is_locked, Ordering::SeqCst);
}

/// After a fork, in the parent.
pub fn after_fork_in_parent() {
    if LOCKED_FOR_FORK.swap(false, Ordering::SeqCst) {
        // SAFETY: `before_fork` has taken it in this thread.
        unsafe { ENGINE.unlock_after_fork() };
    }
}

/// After a fork, in the child. Its files are written when its first Python function is called, or by
/// [`tend`]: most children are about to execute another program, and need none.
pub fn after_fork_in_child() {
    WISH.store(wish::NOTHING, Ordering::SeqCst);
    // SAFETY: this is the only thread. Nobody who might have held it is left.
    unsafe { COMPLAINT.replace_after_fork(None) };
    HOT.table.store(0, Ordering::Release);
    if LOCKED_FOR_FORK.swap(false, Ordering::SeqCst) {
        NEEDS_FILES.store(ACTIVE.load(Ordering::Relaxed), Ordering::SeqCst);
        // SAFETY: `before_fork` has taken it in the thread of which this one is a copy.
        unsafe { ENGINE.unlock_after_fork() };
    } else {
        // SAFETY: this is the only thread, and it does not hold the lock.
        unsafe { ENGINE.replace_after_fork(None) };
    }
}

/// Writes the files of a forked child, if that has yet to be done. Waits for nobody.
pub fn tend() {
    if NEEDS_FILES.load(Ordering::Relaxed)
        && let Some(mut engine) = ENGINE.try_lock()
        && NEEDS_FILES.swap(false, Ordering::SeqCst)
        && let Some(engine) = &mut *engine
    {
        engine.renew_files();
    }
}

impl Engine {
    fn renew_files(&mut self) {
        self.own_files();
        if let Err(error) = self.tell_all() {
            complain(&Refusal::File(error.to_string()));
        }
    }
}

/// The calling thread's `errno` as it was: CPython's own code expects it to stay.
struct Errno(c_int);

impl Errno {
    fn save() -> Self {
        // SAFETY: errno's location is the thread's own and always valid.
        Self(unsafe { *libc::__errno_location() })
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = self.0 };
    }
}
