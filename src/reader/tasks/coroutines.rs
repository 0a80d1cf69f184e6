//! The frames of a coroutine that is suspended: its own, and those of what it awaits.

use super::Reading;
use super::kinds::{self, Kind};
use crate::layout::tasks::{Awaiting, FrameState, GeneratorLayout, States, ValueStack, YIELD_FROM};
use crate::mem::{Address, Memory, field, word_at, word32_at};
use crate::reader::Torn;
use crate::reader::frame::{REFERENCE_FLAGS, RawFrame};
use crate::reader::objects::Offset;

/// What a coroutine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It waits, or has not begun; its frames were read.
    Waits,
    /// It runs; this is its frame.
    Runs(Address),
    /// It has ended, or is none of Python's.
    Nothing,
}

/// What one generator is doing.
enum Phase {
    Created,
    /// What it awaits, if it awaits.
    Suspended(Option<Address>),
    Executing,
    Finished,
}

/// Deepest chain of coroutines that await each other.
const MOST_AWAITED: usize = 4096;
/// Largest value stack that is believed, in bytes.
const MOST_STACK: u64 = 1 << 20;
/// At least as long as any version's frame and what stands before it in a generator.
const MOST_BYTES: usize = 512;

impl<M: Memory> Reading<'_, M> {
    /// Adds the frames of a coroutine that waits, the oldest first.
    pub(super) fn frames_of(
        &mut self,
        coroutine: Address,
        into: &mut Vec<RawFrame>,
    ) -> Result<Doing, Torn> {
        let mut object = coroutine;
        let before = into.len();
        for _ in 0..MOST_AWAITED {
            match self.kind(object)? {
                Kind::Generator => {
                    let (frame, phase) = self.generator(object)?;
                    match phase {
                        Phase::Executing if into.len() == before => {
                            return Ok(Doing::Runs(frame.at));
                        }
                        Phase::Executing => return Err(Torn),
                        Phase::Finished if into.len() == before => return Ok(Doing::Nothing),
                        Phase::Finished => return Ok(Doing::Waits),
                        Phase::Created | Phase::Suspended(None) => {
                            into.push(frame);
                            return Ok(Doing::Waits);
                        }
                        Phase::Suspended(Some(awaited)) => {
                            into.push(frame);
                            object = awaited;
                        }
                    }
                }
                Kind::Wrapper => object = kinds::wrapped(self.objects, object)?,
                _ if into.len() == before => return Ok(Doing::Nothing),
                _ => return Ok(Doing::Waits),
            }
        }
        Err(Torn)
    }

    /// Whether a coroutine runs.
    pub(super) fn is_executing(&mut self, coroutine: Address) -> Result<bool, Torn> {
        Ok(self.kind(coroutine)? == Kind::Generator
            && matches!(self.generator(coroutine)?.1, Phase::Executing))
    }

    /// Where a coroutine's frame is; `None` if it has none, or is none of Python's.
    pub(super) fn frame_address(&mut self, coroutine: Address) -> Result<Option<Address>, Torn> {
        if self.kind(coroutine)? != Kind::Generator {
            return Ok(None);
        }
        let GeneratorLayout { frame, state, .. } = self.objects.layout.tasks.generator;
        let at = field(coroutine, frame);
        Ok(match state {
            FrameState::OfGenerator(..) => Some(at),
            _ => Some(self.objects.memory.word(at)?).filter(|&frame| frame != 0),
        })
    }

    fn generator(&self, object: Address) -> Result<(RawFrame, Phase), Torn> {
        let memory = self.objects.memory;
        let layout = self.objects.layout;
        let generator = &layout.tasks.generator;
        let mut bytes = [0; MOST_BYTES];
        let stack_bytes = match generator.stack {
            ValueStack::Pointer { at } | ValueStack::Index { at, .. } => at + 8,
            ValueStack::Depth { at, base } => at.max(base) + 8,
        };
        let state_bytes = match generator.state {
            FrameState::OfFrame(at, _) => at + 1,
            _ => 0,
        };
        let length = layout.frame_bytes().max(stack_bytes).max(state_bytes);
        let (at, bytes, state) = match generator.state {
            FrameState::OfGenerator(state, states) => {
                let before = generator.frame.checked_sub(state).ok_or(Torn)?;
                let bytes = bytes.get_mut(..before + length).ok_or(Torn)?;
                let fields = self.frame_fields().map(|at| before + at);
                memory.read_words(field(object, state), bytes, fields.chain([0]))?;
                let (head, frame) = bytes.split_at(before);
                let state = *head.first().ok_or(Torn)? as i8;
                (field(object, generator.frame), frame, Some((state, states)))
            }
            _ => {
                let at = memory.word(field(object, generator.frame))?;
                let bytes = bytes.get_mut(..length).ok_or(Torn)?;
                if at == 0 {
                    (at, &*bytes, None)
                } else {
                    memory.read_words(at, bytes, self.frame_fields())?;
                    let state = match generator.state {
                        FrameState::OfFrame(state, states) => Some((bytes[state] as i8, states)),
                        _ => None,
                    };
                    (at, &*bytes, state)
                }
            }
        };
        let frame = RawFrame::of(layout, at, bytes);
        let phase = match state {
            _ if at == 0 => Phase::Finished,
            Some((state, States { created, .. })) if state == created => Phase::Created,
            Some((state, States { executing, .. })) if state == executing => Phase::Executing,
            Some((state, States { executing, .. })) if state > executing => Phase::Finished,
            Some((state, States { created, .. })) if state < created => return Err(Torn),
            None if (frame.instruction as u32 as i32) < 0 => Phase::Created,
            None if self.stack_end(&frame, bytes)?.is_none() => Phase::Executing,
            _ => Phase::Suspended(self.awaited(&frame, bytes, state.map(|(state, _)| state))?),
        };
        Ok((frame, phase))
    }

    /// What matters of a generator's frame: what it runs, and where it stands.
    fn frame_fields(&self) -> impl Iterator<Item = usize> {
        let layout = self.objects.layout;
        let generator = &layout.tasks.generator;
        let stack = match generator.stack {
            ValueStack::Pointer { at } | ValueStack::Index { at, .. } => [Some(at), None],
            ValueStack::Depth { at, base } => [Some(at), Some(base)],
        };
        let state = match generator.state {
            FrameState::OfFrame(at, _) => Some(at),
            _ => None,
        };
        let frame = [Some(layout.frame_code), Some(layout.frame_instruction)];
        let others = [layout.frame_bytecode_index, state];
        frame.into_iter().chain(stack).chain(others).flatten().map(|at| at & !7)
    }

    /// Where the value stack of a frame ends; `None` if it has none, as it runs.
    fn stack_end(&self, frame: &RawFrame, bytes: &[u8]) -> Result<Option<Address>, Torn> {
        let generator = &self.objects.layout.tasks.generator;
        Ok(match generator.stack {
            ValueStack::Pointer { at } => match word_at(bytes, at) {
                0 => None,
                end if end.wrapping_sub(frame.at) > MOST_STACK => return Err(Torn),
                end => Some(end),
            },
            ValueStack::Depth { at, base } => {
                let count = word32_at(bytes, at);
                let end = u64::from(count) * 8;
                if end > MOST_STACK {
                    return Err(Torn);
                }
                Some(word_at(bytes, base).wrapping_add(end))
            }
            ValueStack::Index { at, locals } => {
                let end = u64::from(word32_at(bytes, at)) * 8;
                if end > MOST_STACK {
                    return Err(Torn);
                }
                Some(field(frame.at, locals).wrapping_add(end))
            }
        })
    }

    /// What a suspended frame awaits, if it awaits.
    fn awaited(
        &self,
        frame: &RawFrame,
        bytes: &[u8],
        state: Option<i8>,
    ) -> Result<Option<Address>, Torn> {
        let memory = self.objects.memory;
        let layout = self.objects.layout;
        let generator = &layout.tasks.generator;
        let awaits = match generator.awaiting {
            Awaiting::State(least) => state.is_some_and(|state| state >= least),
            Awaiting::ResumeArgument => {
                const AFTER_YIELD_FROM: u8 = 2;
                let mut next = [0; 2];
                memory.read(frame.instruction.offset(2)?, &mut next)?;
                next[1] & 3 >= AFTER_YIELD_FROM
            }
            Awaiting::YieldFrom { factor } => {
                let last = usize::try_from(frame.instruction as u32 as i32).map_err(|_| Torn)?;
                let code = memory.word(field(frame.code, layout.code_instructions))?;
                let next = last.checked_mul(factor).ok_or(Torn)? + 2;
                memory.byte(code.offset(layout.bytes_data)?.offset(next)?)? == YIELD_FROM
            }
        };
        if !awaits {
            return Ok(None);
        }
        let end = self.stack_end(frame, bytes)?.ok_or(Torn)?;
        let awaited = memory.word(end.before(8 * generator.awaited_below)?)? & !REFERENCE_FLAGS;
        Ok((awaited != 0).then_some(awaited))
    }
}
