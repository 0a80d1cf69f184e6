//! A call that has begun, of which memory shows all but the pointer to its frame.
//!
//! Of all that a call stores the pointer to the top frame is the last, and a processor runs on while what it has stored
//! is on its way to memory. So for some nanoseconds a new frame runs while memory still shows its caller on top, for
//! longer than it shows a frame that has returned, and functions that return at once would lose most of their share.
//!
//! The frames are copied some nanoseconds after the pointer was read, and may show such a call, or one that was made in
//! between. Where they do, the sample is of the one moment and of the other by turns: that comes near to what threads
//! show that are held still. Always the later one would show too many calls, as what returns in between stays on top.

use super::calls::{Body, function_of};
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
        let shows = links.may_show(place, || memory.byte(frame.instruction).ok());
        if walker.was_interrupted() || !(shows || links.contexts.calls(place)) {
            return;
        }
        if let Some(entered) = begun(memory, layout, codes, walker, &newest)
            && (shows || links.has(Some(place), entered.place.code))
        {
            if shows {
                links.add_shown(place, entered.place.code);
            }
            self.was_later = !self.was_later;
            if self.was_later {
                raw.insert(0, entered.frame);
                bodies.push(entered.body);
                stack.push(entered.place);
            }
        }
    }
}

/// The frame that lies behind the newest one, if that has called it and it has not run yet: one that has returned is at
/// a later instruction. The value stack must show the call, which it does once the arguments are taken from it.
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
    use crate::layout::{CodeIdentity, TopFrame, tables};
    use crate::mem::{Address, MemoryImage, field};
    use crate::reader::testing::World;
    use crate::sampler::links::Evidence;

    const UNITS: u64 = 8;
    const SITE: u64 = 3;
    const GENERATOR: u64 = 0x20;

    /// What is different from a call that has begun.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum But {
        Nothing,
        HasRun,
        IsAnothers,
        RunsAnother,
        IsGenerator,
        IsNotCalled,
        /// It is known from another instruction only, where the value stack has shown it, or has not.
        IsUnknown {
            is_shown: bool,
        },
    }

    /// Whether value stacks show what is called.
    struct Stacks {
        show: bool,
    }

    impl Evidence for Stacks {
        fn opcode(&self, _: usize) -> Option<u8> {
            // The code is all zeros.
            Some(0)
        }
        fn is_called(&self, _: usize) -> Option<bool> {
            self.show.then_some(true)
        }
        fn call_opcode(&self, _: usize) -> Option<u8> {
            None
        }
        fn call_sites(&self, _: usize, _: impl FnMut(u8, i32)) -> Option<()> {
            None
        }
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
        ];
        if let CodeIdentity::Version(offset) = layout.code_identity {
            words.push((offset, text));
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
        // Head, variable, and what is called behind no method.
        let length = 72 + 4 * 8;
        let ran = if but == But::HasRun { 2 } else { 0 };
        let stack = world.place(&[
            (layout.frame_code, caller),
            (layout.frame_instruction, start(caller) + 2 * SITE),
            (64, u64::from(but != But::IsNotCalled)),
            (88, function),
            (length + layout.frame_code, callee),
            (length + layout.frame_instruction, start(callee) - 2 + ran),
            (length + call.frame_function, if but == But::RunsAnother { other } else { function }),
        ]);
        let previous = if but == But::IsAnothers { 0 } else { stack };
        world.set(stack + (length + layout.frame_previous) as u64, previous);
        let TopFrame::InCFrame { cframe, current_frame } = layout.thread_top_frame else {
            return 0;
        };
        let cframe_at = world.place(&[(current_frame, stack)]);
        let thread = world.place(&[(cframe, cframe_at)]);
        let image: MemoryImage = world.image(0);

        let mut codes = CodeTable::new(layout.clone(), code_type);
        let [caller_is, callee_is] =
            [caller, callee].map(|at| codes.resolve(&image, at).expect("it is code"));
        let place = Located::new(caller_is.id, SITE as i32);
        let mut links = KnownLinks::default();
        let (site, show) = match but {
            But::IsUnknown { is_shown } => (SITE as i32 + 1, is_shown),
            _ => (SITE as i32, false),
        };
        let known = [Located::new(caller_is.id, site), Located::new(callee_is.id, 0)];
        links.learn(&known, true, &Stacks { show });
        let body = Body::new(caller, caller_is);
        let (mut walker, mut entering, mut raw) =
            (Walker::default(), Entering::default(), Vec::new());
        let mut take = || {
            assert!(walker.walk(&image, layout, thread, &mut raw).is_ok());
            assert_eq!(raw.len(), 1);
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
        (0..4).filter_map(|_| take()).count()
    }

    #[test]
    fn a_call_that_has_begun_is_shown_by_every_second_sample() {
        for layout in [&tables::V3_11, &tables::V3_12] {
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
    }
}
