//! Samples by greenlet: what stands below the frames of the greenlet that a thread runs, and a stack
//! of each that is switched out.

use std::collections::{HashMap, HashSet};

use super::tasks::{FILE, Seen, placed};
use super::waiting::{Source, Stacks};
use crate::hash::FastHash;
use crate::layout::Layout;
use crate::mem::{Address, Memory, field};
use crate::os::clock;
use crate::reader::Torn;
use crate::reader::codes::{CodeId, CodeTable, Located};
use crate::reader::frame::RawFrame;
use crate::reader::greenlets::heap::Heap;
use crate::reader::greenlets::{Doing, GreenletReader, Moment, Reading};
use crate::reader::passes::Pass;
use crate::reader::states;
use crate::reader::threads::ThreadState;

/// Most greenlets that are known.
const MOST_GREENLETS: usize = 1 << 17;
/// Most names that are kept apart.
const MOST_NAMES: usize = 1 << 15;
/// Stands for all names beyond.
const ANOTHER: &str = "…";
/// Tries to read a greenlet of a thread that switches meanwhile.
const TRIES: usize = 16;
/// Objects that are looked at in one cycle, young and old ones; and how long that may take, as a
/// share of the time.
const YOUNG: (usize, u64) = (8192, 20);
const OLD: (usize, u64) = (4096, 40);

/// What the greenlets of a thread were read at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    interpreter: Address,
    moment: Moment,
    /// How many were known, and found, of the interpreter.
    found: u64,
    /// How often all objects had been looked at when this moment was first seen.
    passes: u64,
}

/// Reads greenlets, and remembers them.
#[derive(Default)]
pub struct Greenlets {
    reader: GreenletReader,
    names: Names,
    searches: HashMap<Address, Search, FastHash>,
    raw: Vec<RawFrame>,
    /// Code objects of this pass.
    pass: Pass,
}

/// What stands for greenlets.
#[derive(Default)]
struct Names {
    /// By name and the function at the root.
    known: HashMap<(Box<str>, CodeId), CodeId>,
    /// By what is the same only for the same name, and the function.
    keys: HashMap<((Address, Address), CodeId), CodeId, FastHash>,
}

/// What was found of one interpreter.
#[derive(Default)]
struct Search {
    heap: Heap,
    known: Vec<Known>,
    listed: HashSet<Address, FastHash>,
    /// How many were ever found.
    found: u64,
    passes: u64,
    new: Vec<Address>,
    cycle: u64,
    next_young_ns: u64,
    next_old_ns: u64,
}

#[derive(Clone, Copy)]
struct Known {
    greenlet: Address,
    /// The main greenlet of its thread; 0 if not known.
    main: Address,
}

impl Greenlets {
    /// Forgets where everything is; another runtime may be in its place.
    pub fn forget(&mut self) {
        self.reader.forget();
        self.searches.clear();
        self.pass.forget();
    }

    /// Whether there are greenlets that cannot be shown.
    pub fn has_unknown(&self) -> bool {
        self.reader.has_unknown
    }

    /// Forgets everything that was learned of code objects.
    pub fn forget_codes(&mut self) {
        self.names = Names::default();
        self.pass.forget();
    }

    /// What a thread says of its greenlets before its stack is read; `None` if it has none.
    pub fn moment(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        thread: &ThreadState,
    ) -> Result<Option<Moment>, Torn> {
        let interpreter = memory.word(field(thread.at, layout.thread_interpreter))?;
        match self.reader.reading(memory, layout, interpreter)? {
            Some(mut reading) => reading.moment(thread.at, thread.ident),
            None => Ok(None),
        }
    }

    /// What stands below a stack that was read since a moment; `None` for the thread's main greenlet.
    pub fn below(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        codes: &mut CodeTable,
        seen: &Seen<'_>,
        moment: &Moment,
    ) -> Result<Option<Located>, Torn> {
        let interpreter = memory.word(field(seen.thread, layout.thread_interpreter))?;
        let mut reading = self.reader.reading(memory, layout, interpreter)?.ok_or(Torn)?;
        let below = match seen.stack.first() {
            Some(root) if moment.current != moment.main => {
                Some(named(&mut reading, &mut self.names, codes, moment, moment.current, root)?)
            }
            _ => None,
        };
        let newest = seen.raw.first().map_or(0, |newest| newest.at);
        if reading.is_stack_of(moment, newest)? { Ok(below) } else { Err(Torn) }
    }

    /// Whether the greenlets of a thread that are switched out are those that were read last. None of
    /// them can have gone on if the thread has not switched.
    pub fn are_settled<M: Memory>(
        &mut self,
        source: &Source<'_, M>,
        thread: &ThreadState,
        last: &Stacks,
    ) -> Result<bool, Torn> {
        let Source { memory, layout, .. } = *source;
        let interpreter = memory.word(field(thread.at, layout.thread_interpreter))?;
        let Some(mut reading) = self.reader.reading(memory, layout, interpreter)? else {
            return Ok(false);
        };
        let Some(Settled { moment, found, .. }) = last.settled else { return Ok(false) };
        let search = self.searches.entry(interpreter).or_default();
        search.go_on(source, &reading, interpreter)?;
        Ok(reading.moment(thread.at, thread.ident)? == Some(moment) && search.found == found)
    }

    /// Whether all greenlets that there were when they were read have been found.
    pub fn are_all_found(&self, settled: &Settled) -> bool {
        // One pass was under way.
        self.searches
            .get(&settled.interpreter)
            .is_none_or(|search| search.passes >= settled.passes + 2)
    }

    /// Adds the stacks of those greenlets of a thread that are switched out.
    pub fn waiting<M: Memory>(
        &mut self,
        source: &Source<'_, M>,
        codes: &mut CodeTable,
        thread: &ThreadState,
        into: &mut Stacks,
    ) -> Result<(), Torn> {
        let Source { memory, layout, .. } = *source;
        let before = into.settled.take();
        let interpreter = memory.word(field(thread.at, layout.thread_interpreter))?;
        let Self { reader, names, searches, raw, pass } = self;
        let Some(mut reading) = reader.reading(memory, layout, interpreter)? else {
            return Ok(());
        };
        let Some(mut moment) = reading.moment(thread.at, thread.ident)? else { return Ok(()) };
        let search = searches.entry(interpreter).or_default();
        search.go_on(source, &reading, interpreter)?;
        search.add(&[moment.main, moment.current]);
        pass.begin(memory, codes);
        let first = moment;
        let mut is_whole = true;
        let mut index = 0;
        while let Some(&Known { greenlet, main }) = search.known.get(index) {
            index += 1;
            if main != 0 && main != moment.main {
                continue;
            }
            let mut read = Err(Torn);
            for _ in 0..TRIES {
                let of = Of { moment: &moment, greenlet };
                read = stack(&mut reading, names, codes, of, raw, pass, into);
                if read.is_ok() {
                    break;
                }
                moment = reading.moment(thread.at, thread.ident)?.ok_or(Torn)?;
            }
            let Ok(doing) = read else {
                into.failed += 1;
                is_whole = false;
                continue;
            };
            search.known[index - 1].main = match doing {
                Doing::Waits => moment.main,
                Doing::OfAnother(main) => main,
                Doing::Nothing | Doing::Gone => 0,
            };
            if doing == Doing::Gone {
                index -= 1;
                search.known.swap_remove(index);
                search.listed.remove(&greenlet);
            }
        }
        pass.end(memory, codes)?;
        if is_whole && moment == first && reading.has_not_switched(&moment) {
            let passes = match before {
                Some(Settled { moment, passes, .. }) if moment == first => passes,
                _ => search.passes,
            };
            into.settled = Some(Settled { interpreter, moment, found: search.found, passes });
        }
        Ok(())
    }
}

impl Search {
    /// Looks for greenlets a while longer.
    fn go_on<M: Memory>(
        &mut self,
        source: &Source<'_, M>,
        reading: &Reading<'_, M>,
        interpreter: Address,
    ) -> Result<(), Torn> {
        if self.cycle == source.cycle {
            return Ok(());
        }
        self.cycle = source.cycle;
        let collecting_at = states::collecting_at(source.memory, source.build, interpreter)?;
        let mut new = std::mem::take(&mut self.new);
        new.clear();
        let mut now = clock::monotonic_ns();
        let later = |begin: u64, share: u64| {
            let end = clock::monotonic_ns();
            (end, end + share * (end - begin))
        };
        if now >= self.next_young_ns {
            let _ = self.heap.young(reading, collecting_at, YOUNG.0, &mut new);
            (now, self.next_young_ns) = later(now, YOUNG.1);
        }
        if now >= self.next_old_ns {
            if self.heap.old(reading, collecting_at, OLD.0, &mut new) == Ok(true) {
                self.passes += 1;
                // Another greenlet may be in the place of one that is gone.
                self.known.iter_mut().for_each(|known| known.main = 0);
            }
            (_, self.next_old_ns) = later(now, OLD.1);
        }
        self.add(&new);
        self.new = new;
        Ok(())
    }

    fn add(&mut self, greenlets: &[Address]) {
        for &greenlet in greenlets {
            if self.known.len() < MOST_GREENLETS && self.listed.insert(greenlet) {
                self.known.push(Known { greenlet, main: 0 });
                self.found += 1;
            }
        }
    }
}

/// A greenlet at a moment.
#[derive(Clone, Copy)]
struct Of<'a> {
    moment: &'a Moment,
    greenlet: Address,
}

/// Adds the stack of a greenlet if it is switched out.
fn stack<M: Memory>(
    reading: &mut Reading<'_, M>,
    names: &mut Names,
    codes: &mut CodeTable,
    of: Of<'_>,
    raw: &mut Vec<RawFrame>,
    pass: &mut Pass,
    into: &mut Stacks,
) -> Result<Doing, Torn> {
    let Of { moment, greenlet } = of;
    raw.clear();
    let doing = reading.frames(moment, greenlet, raw)?;
    if doing != Doing::Waits {
        return Ok(doing);
    }
    let (memory, layout) = (reading.memory(), reading.layout());
    let start = into.frames.len();
    let mut add = || {
        let mut marker = None;
        for raw in raw.iter() {
            let proven = pass.resolve(memory, codes, raw.code)?;
            let Some(frame) = placed(memory, layout, codes, proven, raw)? else { continue };
            if marker.is_none() {
                let below = named(reading, names, codes, moment, greenlet, &frame)?;
                into.frames.push(*marker.insert(below));
            }
            into.frames.push(frame);
        }
        // It may have gone on while its code was read.
        if reading.has_not_switched(moment) { Ok(marker.is_some()) } else { Err(Torn) }
    };
    let added = add();
    match added {
        Ok(true) => {
            into.end();
            Ok(Doing::Waits)
        }
        Ok(false) => Ok(Doing::Nothing),
        Err(torn) => {
            into.frames.truncate(start);
            Err(torn)
        }
    }
}

/// What stands for a greenlet: its name, or its class, and the function at its root.
fn named<M: Memory>(
    reading: &mut Reading<'_, M>,
    names: &mut Names,
    codes: &mut CodeTable,
    moment: &Moment,
    greenlet: Address,
    root: &Located,
) -> Result<Located, Torn> {
    let in_frame = |code| Located::new(code, -1);
    let is_main = greenlet == moment.main;
    let key = if is_main { None } else { reading.name_key(greenlet)?.map(|key| (key, root.code)) };
    if let Some(&code) = key.and_then(|key| names.keys.get(&key)) {
        return Ok(in_frame(code));
    }
    let name = (reading.name(moment, greenlet)?, root.code);
    let code = match names.known.get(&name) {
        Some(&code) => code,
        None if names.known.len() >= MOST_NAMES => codes.synthetic(FILE, ANOTHER).ok_or(Torn)?,
        None => {
            let function = codes.code(root.code).ok_or(Torn)?;
            let text = format!("{} ({})", name.0, function.name);
            let code = codes.synthetic(FILE, &text).ok_or(Torn)?;
            names.known.insert(name, code);
            code
        }
    };
    if let Some(key) = key
        && names.keys.len() < MOST_NAMES
    {
        names.keys.insert(key, code);
    }
    Ok(in_frame(code))
}
