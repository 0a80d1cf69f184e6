//! Which frames of a stack are in C code, and in whose: functions that have called back into Python,
//! and the one that the newest frame has called.
//!
//! What a frame calls lies on its value stack. It is believed if it was read in the very moment of the
//! frame's instruction, or is the same before and after all else was read; an object that may be gone
//! by then, if the frame still calls it. What remains open is shown without a name, or not at all.

use std::collections::HashMap;

use super::activity::State;
use super::calls::{Body, read_sites};
use crate::hash::FastHash;
use crate::layout::bytecode::Called;
use crate::layout::detect::Build;
use crate::layout::natives::{Entry, ValueLayout};
use crate::layout::{CodeIdentity, Layout};
use crate::mem::{Address, Memory, field};
use crate::reader::Torn;
use crate::reader::bytecode::{UNIT_BYTES, instruction_index};
use crate::reader::callables::{Callable, Callables};
use crate::reader::codes::{Code, CodeId, CodeTable, Located};
use crate::reader::frame::{REFERENCE_FLAGS, RawFrame};
use crate::reader::frames::Walker;
use crate::reader::sites::{Action, Site};
use crate::reader::threads;

/// How much is copied behind the newest frame, for its values.
pub const REACH: u64 = 256;
/// The file of the frames that stand for C code, and what they are called if it is not known of whom.
const FILE: &str = "~";
const NATIVE: &str = "<native>";
/// The function that collects garbage when it is called.
const COLLECT: &str = "gc.collect";
/// What the method is called that runs when an object is let go of.
const FINALIZER: &str = "__del__";
/// Most names that are kept apart, and most code objects whose calls are remembered.
const MOST_NAMES: usize = 1 << 14;
const MOST_CODES: usize = 1 << 14;
/// `NB_ADD` and what follows it (`opcode.h`, 3.12 to 3.15).
#[rustfmt::skip]
const OPERATORS: [&str; 26] = [
    "+", "&", "//", "<<", "@", "*", "%", "|", "**", ">>", "-", "/", "^",
    "+=", "&=", "//=", "<<=", "@=", "*=", "%=", "|=", "**=", ">>=", "-=", "/=", "^=",
];
/// `Py_LT` and what follows it (`object.h`).
const COMPARISONS: [&str; 6] = ["<", "<=", "==", "!=", ">", ">="];
/// The instructions up to 3.10 that may run Python code themselves (`opcode.h` of v3.8.18, v3.9.18 and
/// v3.10.13): those that call functions, enter and leave `with` blocks, and resume generators.
const MAY_CALL_DIRECTLY: [u8; 13] = [49, 50, 51, 52, 72, 73, 81, 93, 131, 141, 142, 143, 161];
/// Those that run no code at all: a frame at one of them has just left what it had called.
/// `NOP`, `RETURN_VALUE`, `LOAD_CONST`, `LOAD_GLOBAL`, `LOAD_FAST`, `LOAD_CLOSURE`, `LOAD_DEREF`.
const CALLS_NOTHING: [u8; 7] = [9, 83, 100, 116, 124, 135, 136];
/// The specialisations of `PRECALL` that call C functions and types themselves (`opcode.h` of v3.11.7).
const CALLS_BUILTIN: [u8; 14] = [66, 67, 72, 73, 76, 77, 78, 79, 80, 81, 113, 121, 127, 141];

/// The C code of an accepted stack.
#[derive(Debug, Default)]
pub struct Callees {
    /// For each frame, root first, what it has called and what has called the next one.
    pub above: Vec<Option<CodeId>>,
    /// Whether they are of the accepted stack.
    pub is_known: bool,
    leaf: Option<Leaf>,
}

/// What the newest frame has called.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    code: CodeId,
    /// Whether it has not returned yet: between two instructions the interpreter may wait for the GIL
    /// or collect garbage.
    is_sure: bool,
    is_collector: bool,
}

impl Callees {
    /// What the newest frame of a sample in this state is in.
    pub fn leaf(&self, state: State) -> Option<CodeId> {
        let is_between = |leaf: &Leaf| {
            let collects = state.has(State::IN_GC) && !leaf.is_collector;
            !leaf.is_sure && (state.has(State::WAITS_FOR_GIL) || collects)
        };
        self.leaf.filter(|leaf| !is_between(leaf)).map(|leaf| leaf.code)
    }
}

/// An accepted stack, and the frames that it was read from.
pub struct Seen<'a> {
    /// The thread's state.
    pub thread: Address,
    /// Newest first.
    pub raw: &'a [RawFrame],
    /// Root first, as many.
    pub bodies: &'a [Body],
    /// Root first.
    pub stack: &'a [Located],
}

/// Finds C code; one for all threads.
#[derive(Default)]
pub struct Natives {
    codes: HashMap<Address, Known, FastHash>,
    names: HashMap<Box<str>, CodeId>,
    name: String,
    again: String,
}

/// Where a code object may call C code.
struct Known {
    version: u32,
    /// From a frame to its value stack, in bytes.
    values: usize,
    sites: Box<[Site]>,
}

/// A frame of an accepted stack.
#[derive(Clone, Copy)]
struct Frame<'a> {
    raw: &'a RawFrame,
    body: Body,
    at: Located,
}

/// What was found on a value stack.
struct Found {
    action: Action,
    first: u64,
    second: u64,
    /// Where these were read, and what stays the same as long as they are right.
    words: [(Address, u64); 5],
    /// Whether they are of the moment of the stack.
    is_of_moment: bool,
}

impl Found {
    /// The first, as it lies on the stack.
    fn first_word(&self) -> u64 {
        self.words[2].1
    }
}

impl Natives {
    /// Forgets everything that was learned of code objects.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Finds the C code of a stack. What is not certain is left out.
    pub fn look<M: Memory>(
        &mut self,
        memory: &M,
        build: &Build,
        codes: &mut CodeTable,
        walker: &mut Walker,
        seen: &Seen<'_>,
        into: &mut Callees,
    ) {
        let layout = &build.layout;
        into.above.clear();
        into.leaf = None;
        into.is_known = true;
        let Seen { raw, bodies, stack, .. } = *seen;
        if raw.len() != bodies.len() || stack.len() > raw.len() {
            return;
        }
        let plain = self.named(codes, NATIVE);
        for (index, pair) in stack.windows(2).enumerate() {
            let (frame, callee) = (&raw[raw.len() - 1 - index], &raw[raw.len() - 2 - index]);
            let is_entered = match layout.natives.entry {
                Entry::ByInstruction => leaves_to_c(memory, layout, frame, pair[0]),
                Entry::InFrame(offset) => {
                    callee.is_entry
                        || calls_builtin(memory, layout, frame)
                        || is_entry_by_now(memory, layout, callee, offset)
                }
                Entry::Foreign => callee.is_entry,
            };
            // A call also lets go of its arguments when it has returned.
            let ends_something = |code: &Code| code.name.ends_with(FINALIZER);
            let is_doubtful = codes.code(pair[1].code).is_some_and(ends_something);
            let above = match (is_entered, is_doubtful) {
                (false, _) => None,
                (true, true) => plain,
                (true, false) => {
                    let found = Frame { raw: frame, body: bodies[index], at: pair[0] };
                    self.called(memory, layout, codes, walker, found, false).or(plain)
                }
            };
            into.above.push(above);
        }
        let (Some(&top), Some(newest), true) =
            (stack.last(), raw.first(), stack.len() == raw.len())
        else {
            return;
        };
        let body = bodies[bodies.len() - 1];
        let found = Frame { raw: newest, body, at: top };
        let named = self.called(memory, layout, codes, walker, found, true);
        let is_told = layout.natives.values.is_some_and(|values| {
            values.frame_stack_pointer.is_some() || !values.bytecode.is_callable_first
        });
        let collector = self.names.get(COLLECT).copied();
        let leaf = |code| Leaf {
            code,
            is_sure: is_told && named.is_some(),
            is_collector: named.is_some() && named == collector,
        };
        into.leaf = named.map(leaf).or_else(|| {
            let is_apart = !threads::is_attached(memory, build, seen.thread)
                && walker.top(memory, layout, seen.thread) == Ok(newest.at)
                && memory.word(field(newest.at, layout.frame_instruction)).is_ok_and(|word| {
                    // Before 3.11 it is an int, with others behind it.
                    word as u32 == newest.instruction as u32
                });
            let is_told = || calls_builtin(memory, layout, newest);
            plain.filter(|_| is_apart || is_told()).map(leaf)
        });
    }

    /// What stands for C code of this name. `None` if the table of codes is full.
    fn named(&mut self, codes: &mut CodeTable, name: &str) -> Option<CodeId> {
        if let Some(&code) = self.names.get(name) {
            return Some(code);
        }
        if self.names.len() >= MOST_NAMES {
            return self.names.get(NATIVE).copied();
        }
        let code = codes.synthetic(FILE, name)?;
        self.names.insert(name.into(), code);
        Some(code)
    }

    /// The C code that a frame has called, if the interpreter tells.
    fn called<M: Memory>(
        &mut self,
        memory: &M,
        layout: &Layout,
        codes: &mut CodeTable,
        walker: &Walker,
        Frame { raw, body, at }: Frame<'_>,
        is_newest: bool,
    ) -> Option<CodeId> {
        let values = layout.natives.values?;
        let frame = &RawFrame { code: body.code, ..*raw };
        // Frames may have been put back to an earlier call.
        if instruction_index(memory, layout, frame).ok()? != i64::from(at.index) {
            return None;
        }
        let known = self.known(memory, layout, &values, frame, body)?;
        let place = known.sites.binary_search_by_key(&(at.index as u32), |site| site.index).ok()?;
        let site = known.sites[place];
        let start = field(frame.at, known.values);
        let is_call =
            matches!(site.action, Action::Call(_) | Action::CallNamed(_) | Action::CallSpread(_));
        let opcode = memory.byte(frame.instruction).ok()?;
        let bytecode = values.bytecode;
        let is_specialised = bytecode.base[usize::from(opcode)] != opcode;
        // Most operators are specialised, and need no C code then. Others may have been done already,
        // unless the stack pointer tells.
        if is_newest && !is_call && (is_specialised || values.frame_stack_pointer.is_none()) {
            return None;
        }
        if is_newest && bytecode.python_calls.contains(&opcode) {
            return None;
        }
        let found = found(memory, layout, &values, walker, frame, site, start)?;
        let callables = Callables::new(memory, layout);
        let may_be_result = match is_newest && is_call && bytecode.is_callable_first {
            true => may_be_result(&callables, &values, &found, opcode).ok().flatten()?,
            false => false,
        };
        let mut name = std::mem::take(&mut self.name);
        let mut again = std::mem::take(&mut self.again);
        let first = describe(&callables, &values, &found, &mut name);
        let is_right = match first {
            Ok(Callable::Native { is_no_result: false, .. }) if may_be_result => {
                (self.name, self.again) = (name, again);
                return self.named(codes, NATIVE);
            }
            Ok(Callable::Native { is_lasting: true, .. }) if found.is_of_moment => true,
            Ok(Callable::Native { .. }) => {
                let is_same = || found.words.iter().all(|&(at, word)| memory.word(at) == Ok(word));
                is_same()
                    && describe(&callables, &values, &found, &mut again) == first
                    && again == name
                    && is_same()
            }
            _ => false,
        };
        let code = is_right.then(|| self.named(codes, &name)).flatten();
        (self.name, self.again) = (name, again);
        code
    }

    /// What is known of a frame's code object.
    fn known<M: Memory>(
        &mut self,
        memory: &M,
        layout: &Layout,
        values: &ValueLayout,
        frame: &RawFrame,
        body: Body,
    ) -> Option<&Known> {
        let CodeIdentity::Version(offset) = layout.code_identity else { return None };
        let version = memory.word32(field(body.code, offset)).ok().filter(|&it| it != 0)?;
        if self.codes.get(&body.code).is_none_or(|known| known.version != version) {
            if self.codes.len() >= MOST_CODES {
                self.codes.clear();
            }
            let (values, sites) = read_sites(memory, layout, values, frame, body).ok()?;
            if memory.word32(field(body.code, offset)) != Ok(version) {
                return None;
            }
            self.codes.insert(body.code, Known { version, values, sites });
        }
        self.codes.get(&body.code)
    }
}

/// What an operator runs is its operands' types', and those are there no longer than they are.
const OPERATOR: Callable = Callable::Native { is_lasting: false, is_no_result: true };

/// Reads what an instruction works on. `start` is where the frame's value stack begins.
fn found(
    memory: &impl Memory,
    layout: &Layout,
    values: &ValueLayout,
    walker: &Walker,
    frame: &RawFrame,
    site: Site,
    start: Address,
) -> Option<Found> {
    let below = site.action.taken_by_call().unwrap_or(match site.action {
        Action::Iterate => 1 + u32::from(values.bytecode.iterators_have_index),
        _ => 2,
    });
    let place = |below: u32| Some(field(start, 8 * site.depth.checked_sub(below)? as usize));
    let first_at = place(below)?;
    let second_at = if site.action == Action::Iterate { first_at } else { first_at + 8 };
    let instruction_at = field(frame.at, layout.frame_instruction);
    let end_at = values.frame_stack_pointer.map_or(instruction_at, |at| field(frame.at, at));
    let end = match values.frame_stack_pointer {
        Some(_) => place(0)?,
        None => frame.instruction,
    };
    let places = [instruction_at, end_at, first_at, second_at];
    let of_moment = places.map(|at| walker.steady(layout, frame, at));
    let is_of_moment = of_moment.iter().all(Option::is_some);
    let words = match is_of_moment {
        true => of_moment,
        false => places.map(|at| memory.word(at).ok()),
    };
    let [Some(instruction), Some(its_end), Some(first), Some(second)] = words else { return None };
    if instruction != frame.instruction || its_end != end {
        return None;
    }
    // From 3.14 on the arguments are let go of after the call, the last first, with the result where
    // the callable was. It is there a moment before.
    let mut last_argument = (first_at, first);
    let has_arguments = matches!(site.action, Action::Call(1..) | Action::CallNamed(_));
    if has_arguments && values.frame_stack_pointer.is_some() {
        let last_at = place(1)?;
        let last = match is_of_moment {
            true => walker.steady(layout, frame, last_at),
            false => memory.word(last_at).ok(),
        };
        last_argument = (last_at, last?);
        if last_argument.1 & !REFERENCE_FLAGS == 0 {
            return None;
        }
    }
    let words = [
        (instruction_at, instruction),
        (end_at, end),
        (first_at, first),
        (second_at, second),
        last_argument,
    ];
    let [first, second] = [first, second].map(|word| word & !REFERENCE_FLAGS);
    Some(Found { action: site.action, first, second, words, is_of_moment })
}

/// Whether what lies where a call's callable was may be what the call has returned, from 3.13 on, where
/// that takes its place; `None` if it certainly is.
fn may_be_result<M: Memory>(
    callables: &Callables<'_, M>,
    values: &ValueLayout,
    found: &Found,
    opcode: u8,
) -> Result<Option<bool>, Torn> {
    let bytecode = values.bytecode;
    if values.frame_stack_pointer.is_none() {
        return Ok(Some(!bytecode.plain_calls.contains(&opcode)));
    }
    // From 3.14 on that is so for an instant, in which the thread may have to wait for a processor. What a
    // call has made, nobody else has.
    let called = bytecode.native_calls.iter().find(|(of, _)| *of == opcode);
    let Some(&(_, called)) = called else { return Ok(Some(false)) };
    Ok(match callables.fits(found.first, called)? {
        false => None,
        true if matches!(called, Called::Function(_)) => {
            Some(!callables.is_held(found.first_word())?)
        }
        true => Some(false),
    })
}

/// What an instruction runs, and what that is called.
fn describe<M: Memory>(
    callables: &Callables<'_, M>,
    values: &ValueLayout,
    found: &Found,
    name: &mut String,
) -> Result<Callable, Torn> {
    let Found { first, second, .. } = *found;
    name.clear();
    let mut both = |symbol: &str| {
        let mut other = String::new();
        let of_first = callables.type_name(first, name)?;
        // The result takes the first one's place while the operands are let go of.
        if of_first.is_none() || callables.type_name(second, &mut other)? != of_first {
            return Ok(Callable::Unknown);
        }
        *name = format!("{other} {symbol} {other}");
        Ok(OPERATOR)
    };
    match found.action {
        Action::Call(_) | Action::CallNamed(_) | Action::CallSpread(_) => {
            let given = |word| Some(word).filter(|&word: &u64| word != 0);
            let arguments = match found.action {
                Action::Call(count) => Some(count),
                _ => None,
            };
            if values.bytecode.is_callable_first {
                return callables.describe(first, given(second), arguments, name);
            }
            // The result takes the method's place.
            match first {
                0 => callables.describe(second, None, arguments, name),
                method => Ok(match callables.describe(method, given(second), None, name)? {
                    Callable::Native { .. } if !callables.is_method(method)? => Callable::Unknown,
                    other => other,
                }),
            }
        }
        Action::Iterate => {
            let class = callables.type_name(first, name)?;
            name.push_str(".__next__");
            Ok(match class {
                Some(_) => OPERATOR,
                None => Callable::Unknown,
            })
        }
        Action::Contain => {
            let class = callables.type_name(second, name)?;
            name.push_str(".__contains__");
            Ok(match class {
                Some(_) => OPERATOR,
                None => Callable::Unknown,
            })
        }
        Action::Operate(number) => match OPERATORS.get(number as usize) {
            Some(symbol) => both(symbol),
            None => Ok(Callable::Unknown),
        },
        Action::Compare(number) => match COMPARISONS.get(number as usize) {
            Some(symbol) => both(symbol),
            None => Ok(Callable::Unknown),
        },
    }
}

/// Whether a frame of 3.11 tells a moment later that C code has called it: for an instant, one that
/// takes the place of another call of the same function does not.
fn is_entry_by_now(memory: &impl Memory, layout: &Layout, frame: &RawFrame, offset: usize) -> bool {
    memory.byte(field(frame.at, offset)).is_ok_and(|is_entry| is_entry != 0)
        && memory.word(field(frame.at, layout.frame_code)) == Ok(frame.code)
}

/// Whether a frame of 3.11 is at a call that is specialised for C code.
fn calls_builtin(memory: &impl Memory, layout: &Layout, frame: &RawFrame) -> bool {
    let is_told = matches!(layout.natives.entry, Entry::InFrame(_));
    is_told && memory.byte(frame.instruction).is_ok_and(|opcode| CALLS_BUILTIN.contains(&opcode))
}

/// Whether a frame up to 3.10 is at an instruction that runs Python code through C code only, and still
/// is: one that has gone on has left what it had called.
fn leaves_to_c(memory: &impl Memory, layout: &Layout, frame: &RawFrame, at: Located) -> bool {
    let Ok(index) = usize::try_from(at.index) else { return false };
    let opcode = memory
        .word(field(frame.code, layout.code_instructions))
        .and_then(|code| memory.byte(field(code, layout.bytes_data + UNIT_BYTES as usize * index)));
    let may_leave = opcode.is_ok_and(|opcode| {
        !MAY_CALL_DIRECTLY.contains(&opcode) && !CALLS_NOTHING.contains(&opcode)
    });
    // `f_lasti` is an int.
    may_leave
        && memory.word32(field(frame.at, layout.frame_instruction)) == Ok(frame.instruction as u32)
}
