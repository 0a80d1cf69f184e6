//! A call that has begun, of which memory shows all but the pointer to its frame.
//!
//! Of all that a call stores the pointer to the top frame is the last, and a processor runs on while what it has stored
//! is on its way to memory. So for some nanoseconds a new frame runs while memory still shows its caller on top, for
//! longer than it shows a frame that has returned, and functions that return at once would lose most of their share.
//!
//! The frames are copied some nanoseconds after the pointer was read, and may show such a call, or one that was made in
//! between. Where they do, the sample is of the one moment and of the other by turns: that comes near to what threads
//! show that are held still. Always the later one would show too many calls, as what returns in between stays on top.

use super::calls::{Body, ends_at_call, function_of};
use super::links::KnownLinks;
use crate::layout::Layout;
use crate::mem::Memory;
use crate::reader::bytecode::instruction_index;
use crate::reader::codes::{CodeTable, Located};
use crate::reader::frame::RawFrame;
use crate::reader::frames::Walker;

/// The frames of a stack that is being read.
#[derive(Debug)]
pub struct Read<'a> {
    /// Newest first.
    pub raw: &'a mut Vec<RawFrame>,
    /// Root first.
    pub bodies: &'a mut Vec<Body>,
    /// Root first.
    pub stack: &'a mut Vec<Located>,
}

/// The newest one of them.
#[derive(Clone, Copy, Debug)]
struct Newest {
    frame: RawFrame,
    body: Body,
    place: Located,
}

/// Finds calls that one thread has begun.
#[derive(Debug, Default)]
pub struct Entering {
    /// Of the last sample that could be of either moment, the later one was taken.
    was_later: bool,
}

impl Entering {
    /// Puts the frame that the newest one of the last walk has just called on top of it, if the sample is to be of that
    /// moment. Calls that are not known are found where value stacks show them.
    pub fn enter(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        codes: &mut CodeTable,
        links: &mut KnownLinks,
        walker: &mut Walker,
        Read { raw, bodies, stack }: Read<'_>,
    ) {
        let newest = raw.first().zip(bodies.last()).zip(stack.last());
        let Some(((&frame, &body), &place)) = newest else { return };
        let newest = Newest { frame, body, place };
        // Only where frames lie one behind the other, and are copied in one moment.
        if body.frame_bytes.is_none() || memory.prefers_batches() || walker.was_interrupted() {
            return;
        }
        let may_show =
            |links: &KnownLinks| links.may_show(place, || memory.byte(frame.instruction).ok());
        if !links.contexts.calls(place) && !may_show(links) {
            return;
        }
        let Some(entered) = begun(memory, layout, codes, walker, &newest) else { return };
        let callee = entered.place.code;
        if !links.has(Some(place), callee) {
            if !may_show(links) || !ends_at_call(memory, layout, walker, &frame, body) {
                return;
            }
            links.add_shown(place, callee);
        }
        self.was_later = !self.was_later;
        if self.was_later {
            raw.insert(0, entered.frame);
            bodies.push(entered.body);
            stack.push(entered.place);
        }
    }
}

/// The frame that lies behind the newest one, if that has called it and it has not run yet: one that has returned is at
/// a later instruction. The value stack must show the call, as it does once the arguments are taken from it.
fn begun(
    memory: &impl Memory,
    layout: &Layout,
    codes: &mut CodeTable,
    walker: &mut Walker,
    caller: &Newest,
) -> Option<Newest> {
    let at = caller.frame.at.checked_add(caller.body.frame_bytes?.into())?;
    let frame = walker.called_by(layout, &caller.frame, at)?;
    let index = instruction_index(memory, layout, &frame).ok()?;
    if index != layout.first_index() {
        return None;
    }
    let function = function_of(memory, layout, walker, &frame, frame.code)?;
    if walker.called(layout, &caller.frame) != Some(function) {
        return None;
    }
    let newcomers = codes.newcomers();
    let proven = codes.resolve(memory, frame.code).ok()?;
    if codes.newcomers() != newcomers {
        // Another code object may have been there when the frame was copied.
        return None;
    }
    // A generator's frame leaves the data stack at its first instruction, and what it leaves there stays as it was.
    let is_in_data_stack = proven.frame_bytes.is_some();
    let (body, place) = (Body::new(frame.code, proven), Located::new(proven.id, index as i32));
    is_in_data_stack.then_some(Newest { frame, body, place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{CallLayout, Callable, CodeIdentity, StackTop, TopFrame, tables};
    use crate::mem::{Address, MemoryImage, field};
    use crate::reader::testing::World;
    use crate::sampler::links::Evidence;

    const UNITS: u64 = 8;
    const SITE: u64 = 3;
    /// `RESUME`, `PUSH_NULL`, `LOAD_CONST`, `CALL` without arguments, its caches and `RETURN_VALUE`, of 3.12.
    const CODE: [[u8; 8]; 2] = [[151, 0, 2, 0, 100, 0, CALL, 0], [0, 0, 0, 0, 0, 0, 83, 0]];
    const CALL: u8 = 171;
    const GENERATOR: u64 = 0x20;
    /// Where the value stack begins: behind the head and one variable.
    const VALUES: usize = 72 + 8;

    /// What is different from a call that has begun.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum But {
        Nothing,
        HasRun,
        IsAnothers,
        RunsAnother,
        IsGenerator,
        IsNotCalled,
        /// The callee's code has not been met.
        IsNew,
        /// It is known from another instruction only, where the value stack has shown it, or has not.
        IsUnknown {
            is_shown: bool,
        },
        /// It is unknown, and the value stack does not end where it does at this call.
        IsNotStored,
    }

    impl But {
        fn is_elsewhere(self) -> bool {
            matches!(self, Self::IsUnknown { .. } | Self::IsNotStored)
        }
    }

    /// Whether value stacks show what is called.
    struct Stacks {
        show: bool,
    }

    impl Evidence for Stacks {
        fn opcode(&self, _: usize) -> Option<u8> {
            Some(CALL)
        }
        fn is_called(&self, _: usize) -> Option<bool> {
            self.show.then_some(true)
        }
        fn is_call_stored(&self, _: usize) -> bool {
            self.show
        }
        fn call_opcode(&self, _: usize) -> Option<u8> {
            None
        }
        fn call_sites(&self, _: usize, _: impl FnMut(u8, i32)) -> Option<()> {
            None
        }
    }

    /// Frames of 3.12, with all else as from 3.14 on.
    fn modern() -> Layout {
        let call = CallLayout {
            stack_top: StackTop::Pointer { at: 64 },
            callable: Callable::First,
            ..tables::V3_12.call.expect("3.12 has it")
        };
        let thread_top_frame = TopFrame::InThread(72);
        Layout { thread_top_frame, call: Some(call), ..tables::V3_12.clone() }
    }

    fn code(world: &mut World, code_type: Address, name: &str, flags: u64) -> Address {
        let (layout, text) = (world.layout.clone(), world.string(name));
        let table = world.place(&[]);
        let size = layout.frame_size.expect("3.11 on");
        let mut words = vec![
            (layout.object_type, code_type),
            (layout.object_size, UNITS),
            (layout.tasks.code_flags, flags),
            (size.code_stack_size, 3),
            (size.code_locals, 1),
            (layout.code_filename, text),
            (layout.code_qualname.expect("3.11 on"), text),
            (layout.code_line_table, table),
            (layout.code_instructions, u64::from_ne_bytes(CODE[0])),
            (layout.code_instructions + 8, u64::from_ne_bytes(CODE[1])),
        ];
        if let CodeIdentity::Version(offset) = layout.code_identity {
            words.push((offset, text));
        }
        if let Some(values) = layout.natives.values {
            words.push((values.code_handlers, table));
        }
        world.place(&words)
    }

    /// How often, of four samples of a caller, the callee is on top.
    fn entered(layout: &Layout, but: But) -> usize {
        let mut world = World::new(layout.clone());
        let call = layout.call.expect("3.11 on");
        let code_type = world.place(&[]);
        let flags = if but == But::IsGenerator { GENERATOR } else { 0 };
        let [caller, callee] = [("caller", 0), ("callee", flags)]
            .map(|(name, flags)| code(&mut world, code_type, name, flags));
        let start = |code: Address| field(code, layout.code_instructions);
        let function = world.place(&[(call.function_code, callee)]);
        let other = world.place(&[(call.function_code, callee)]);
        let length = VALUES + 3 * 8;
        let ran = if but == But::HasRun { 2 } else { 0 };
        let stack = world.place(&[
            (layout.frame_code, caller),
            (layout.frame_instruction, start(caller) + 2 * SITE),
            (length + layout.frame_code, callee),
            (length + layout.frame_instruction, start(callee) - 2 + ran),
            (length + call.frame_function, if but == But::RunsAnother { other } else { function }),
        ]);
        let previous = if but == But::IsAnothers { 0 } else { stack };
        world.set(stack + (length + layout.frame_previous) as u64, previous);
        // One value further it lies where an argument does.
        let values = if but == But::IsNotStored { VALUES + 8 } else { VALUES };
        let is_first = call.callable == Callable::First;
        let callable = if is_first { values } else { values + 8 };
        world.set(field(stack, callable), if but == But::IsNotCalled { other } else { function });
        match call.stack_top {
            StackTop::Pointer { at } => world.set(field(stack, at), field(stack, values)),
            StackTop::Index { at, locals } => {
                world.set(field(stack, at), ((values - locals) / 8) as u64);
            }
        }
        let thread = match layout.thread_top_frame {
            TopFrame::InThread(offset) => world.place(&[(offset, stack)]),
            TopFrame::InCFrame { cframe, current_frame } => {
                let cframe_at = world.place(&[(current_frame, stack)]);
                world.place(&[(cframe, cframe_at)])
            }
        };
        let image: MemoryImage = world.image(0);

        let mut codes = CodeTable::new(layout.clone(), code_type);
        let [caller_is, callee_is] =
            [caller, callee].map(|at| codes.resolve(&image, at).expect("it is code"));
        let place = Located::new(caller_is.id, SITE as i32);
        let mut links = KnownLinks::default();
        let show = matches!(but, But::IsUnknown { is_shown: true } | But::IsNotStored);
        let site = SITE as i32 + i32::from(but.is_elsewhere());
        let known = [Located::new(caller_is.id, site), Located::new(callee_is.id, 0)];
        links.learn(&known, true, &Stacks { show });
        let body = Body::new(caller, caller_is);
        let (mut walker, mut entering, mut raw) =
            (Walker::default(), Entering::default(), Vec::new());
        let mut take = || {
            assert!(walker.walk(&image, layout, thread, &mut raw).is_ok());
            assert_eq!(raw.len(), 1);
            if but == But::IsNew {
                codes.forget_addresses();
            }
            let (mut bodies, mut places) = (vec![body], vec![place]);
            let read = Read { raw: &mut raw, bodies: &mut bodies, stack: &mut places };
            entering.enter(&image, layout, &mut codes, &mut links, &mut walker, read);
            assert_eq!((raw.len(), bodies.len()), (places.len(), places.len()));
            let (Some(entered), Some(is_in)) = (places.get(1), bodies.get(1)) else { return None };
            assert_eq!(*entered, Located::new(callee_is.id, -1));
            assert_eq!((raw[0].at, is_in.code), (stack + length as u64, callee));
            Some(())
        };
        // The first walk does not know where to look, the second not how far.
        assert_eq!([take(), take()], [None; 2]);
        let times = (0..4).filter_map(|_| take()).count();
        assert_eq!(links.has(Some(place), callee_is.id), times > 0 || !but.is_elsewhere());
        times
    }

    #[test]
    fn a_call_that_has_begun_is_shown_by_every_second_sample() {
        let modern = modern();
        for layout in [&tables::V3_11, &tables::V3_12, &modern] {
            assert_eq!(entered(layout, But::Nothing), 2);
            assert_eq!(entered(layout, But::IsUnknown { is_shown: true }), 2);
            let others = [
                But::HasRun,
                But::IsAnothers,
                But::RunsAnother,
                But::IsGenerator,
                But::IsNotCalled,
                But::IsUnknown { is_shown: false },
            ];
            for but in others {
                assert_eq!(entered(layout, but), 0, "{but:?}");
            }
        }
        assert_eq!(entered(&modern, But::IsNotStored), 0);
    }

    #[test]
    fn code_that_was_not_there_before_tells_nothing() {
        assert_eq!(entered(&tables::V3_11, But::IsNew), 0);
    }
}
