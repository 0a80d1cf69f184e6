//! One walk over a thread's frames, newest first.
//!
//! The thread may be running meanwhile. What makes the walk nearly exact is speed: the pointer to
//! the top frame is read, and at once the memory around it in bulk, because a frame that has
//! returned keeps its contents until the next call overwrites them.

use std::ops::Range;

use super::Torn;
use super::arena::{Arena, Window};
use super::frame::{FIRST_FOREIGN_OWNER, OWNED_BY_GENERATOR, REFERENCE_FLAGS, RawFrame};
use super::recent_tops::RecentTops;
use crate::layout::{Callable, Layout, StackTop, TopFrame};
use crate::mem::{Address, LAG, LINE, Memory, PAGE, Piece, field, word_at};
use crate::os::clock;

/// Deepest stack that is walked; of a deeper one the newest frames are kept.
pub const MOST_FRAMES: usize = 8192;

/// Pages that are read ahead in one batch.
const MOST_PLANNED: usize = 60;
/// Windows that are searched where reading again is as cheap as searching.
const RECENT_WINDOWS: usize = 3;
/// How much is copied in the same instant as the pointer to the top frame, at most.
const SURROUNDINGS: u64 = 17 * LINE as u64;
/// Copying them that takes longer, and so many times as long as usual, was interrupted.
const LONG_NS: u64 = 2_000;
const LONG: u64 = 4;
/// Where the top frame may have lain last, as far as is looked at: the last walk may have found
/// anything in its pointer's place, but programs have neither the lowest page nor the upper half.
const GUESSES: Range<Address> = PAGE..1 << 63;
/// How far below a frame its callers are copied with it, if it lies no farther below what it calls: then both are
/// in the data stack. Below a frame in the C stack, or in the heap, is what the thread is writing just now, which
/// takes it the longer the more of it was read.
const READ_AHEAD: u64 = 2048;
/// No version has more frames than these that are no Python frames, one behind the other.
const MOST_WINDOWS: usize = 2 * MOST_FRAMES;

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The pointer to the top frame.
    pub top: Address,
    /// Whether older frames were left out.
    pub truncated: bool,
}

/// Walks the frames of one thread; keeps its buffers between walks.
#[derive(Debug, Default)]
pub struct Walker {
    arena: Arena,
    windows: Vec<Window>,
    pages: Vec<Address>,
    planned: Vec<(Address, usize)>,
    planned_cframe: Address,
    /// The window that was copied with the pointer to the top frame, and its second copy.
    surroundings: Option<Window>,
    surroundings_again: Arena,
    /// How long that takes on average, and whether it was interrupted.
    usual_ns: u64,
    was_interrupted: bool,
    last_top: Address,
    recent_tops: RecentTops,
    /// How much is copied behind the newest frame, where its values are, in bytes.
    pub reach: u64,
}

impl Walker {
    /// Reads the frames of the thread state at `thread` into `frames`, newest first. No frames
    /// means that the thread runs no Python code.
    pub fn walk(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        thread: Address,
        frames: &mut Vec<RawFrame>,
    ) -> Result<Walk, Torn> {
        frames.clear();
        self.surroundings = None;
        self.was_interrupted = false;
        self.windows.clear();
        self.arena.clear();
        let top = if memory.prefers_batches() {
            self.top_with_plan(memory, layout, thread)?
        } else {
            self.top_with_surroundings(memory, layout, thread)?
        };
        self.pages.clear();
        self.last_top = top;
        self.recent_tops.remember(top);
        let mut next = top;
        let mut visited: usize = 0;
        let mut passed = 0;
        while next != 0 {
            // Frames that were reused meanwhile can lead in a circle: some earlier frame, the farther
            // back the longer the way, is met again then.
            if next == passed {
                return Err(Torn);
            }
            visited += 1;
            if visited.is_power_of_two() {
                passed = next;
            }
            if frames.len() == MOST_FRAMES || visited == MOST_WINDOWS {
                return Ok(Walk { top, truncated: true });
            }
            let callee = frames.last().map(|callee| callee.at);
            let bytes = self.bytes(memory, layout, next, callee)?;
            let previous = word_at(bytes, layout.frame_previous);
            let owner = layout.frame_owner.map_or(0, |offset| bytes[offset]);
            if owner == OWNED_BY_GENERATOR && previous == 0 {
                // Suspended meanwhile, which cuts it off from its caller.
                return Err(Torn);
            }
            if owner < FIRST_FOREIGN_OWNER {
                frames.push(RawFrame::of(layout, next, bytes));
            } else if let Some(callee) = frames.last_mut() {
                callee.is_entry = true;
            }
            next = previous;
        }
        if memory.prefers_batches() {
            self.plan();
        }
        Ok(Walk { top, truncated: false })
    }

    /// The function that a frame of the last walk calls, as the reference to it still lies where
    /// the frame's value stack ends. `None` if that cannot be told for the very moment at which the
    /// frame's instruction was read: only what was the same before and after is of that moment.
    pub fn called(&self, layout: &Layout, frame: &RawFrame) -> Option<Address> {
        let steady = |at: Address| self.steady(layout, frame, at);
        let end = match layout.call?.stack_top {
            StackTop::Index { at, locals } => {
                let count = i32::try_from(steady(field(frame.at, at))? as u32).ok()?;
                field(frame.at, locals + 8 * count as usize)
            }
            StackTop::Pointer { at } => steady(field(frame.at, at))?,
        };
        let called = match layout.call?.callable {
            Callable::First => steady(end)?,
            Callable::AfterMethod => match steady(end)? {
                0 => steady(field(end, 8))?,
                method => method,
            },
        };
        Some(called & !REFERENCE_FLAGS)
    }

    /// A word of the very moment at which the instruction of a frame of the last walk was read: one
    /// that was the same before and after.
    pub fn steady(&self, layout: &Layout, frame: &RawFrame, at: Address) -> Option<u64> {
        let at_once = self.surroundings?;
        let instruction = field(frame.at, layout.frame_instruction);
        // Or else the frame was read later, with others.
        let is_from_there = at_once.holds(instruction, 8)
            && word_at(&self.arena, (instruction - at_once.from) as usize) == frame.instruction;
        let lowest_line = |at: Address| at & !(LINE as u64 - 1);
        let is_around =
            || at_once.holds(at, 8) && lowest_line(at) - LAG as u64 <= lowest_line(instruction);
        let offset = (is_from_there && is_around()).then(|| (at - at_once.from) as usize)?;
        let word = word_at(&self.arena, offset);
        (word == word_at(&self.surroundings_again, offset)).then_some(word)
    }

    /// Whether what was copied around the newest frame may be of two moments that are far apart.
    pub fn was_interrupted(&self) -> bool {
        self.was_interrupted
    }

    /// The frame at an address, a moment after the last walk's pointer to the top frame was read, if it says that
    /// `newest` has called it. If it was not copied, the next walks copy so far, in the same page.
    pub fn called_by(
        &mut self,
        layout: &Layout,
        newest: &RawFrame,
        at: Address,
    ) -> Option<RawFrame> {
        let size = layout.frame_bytes();
        let at_once = self.surroundings.filter(|at_once| at_once.holds(newest.at, size))?;
        if !at_once.holds(at, size) {
            let last = at + size as u64 - 1;
            if last - newest.at < SURROUNDINGS / 2 && last / PAGE == newest.at / PAGE {
                self.recent_tops.remember(at);
            }
            return None;
        }
        let bytes = &self.arena[(at - at_once.from) as usize..][..size];
        (word_at(bytes, layout.frame_previous) == newest.at)
            .then(|| RawFrame::of(layout, at, bytes))
    }

    /// The function object that a frame of the last walk runs. `None` before 3.11.
    pub fn function(&self, layout: &Layout, frame: &RawFrame) -> Option<Address> {
        let function = self.copied(field(frame.at, layout.call?.frame_function))?;
        Some(function & !REFERENCE_FLAGS)
    }

    /// A word of what the last walk has copied.
    fn copied(&self, at: Address) -> Option<u64> {
        let window = self.windows.iter().find(|window| window.holds(at, 8))?;
        Some(word_at(&self.arena, window.offset + (at - window.from) as usize))
    }

    /// Only the pointer to the top frame.
    pub fn top(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        thread: Address,
    ) -> Result<Address, Torn> {
        match layout.thread_top_frame {
            TopFrame::InThread(offset) => Ok(memory.word(field(thread, offset))?),
            TopFrame::InCFrame { cframe, current_frame } => {
                self.planned_cframe = memory.word(field(thread, cframe))?;
                if self.planned_cframe == 0 {
                    // The thread is being started.
                    return Ok(0);
                }
                Ok(memory.word(field(self.planned_cframe, current_frame))?)
            }
        }
    }

    /// The top pointer and, in the same instant, the frames around where it pointed last: loads
    /// that do not wait for the pointer are of the pointer's moment. To look first where it points
    /// now would be more often right, but takes the cache lines away from the thread before the
    /// sample, which then finds it where it waits for them.
    ///
    /// What is copied ends with the highest of the last tops nearby: it is the deepest stacks that
    /// would otherwise be read too late, and they could not be proved then.
    fn top_with_surroundings(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        thread: Address,
    ) -> Result<Address, Torn> {
        let last = self.last_top;
        if !GUESSES.contains(&last) || !layout.has_data_stack() {
            return self.top(memory, layout, thread);
        }
        let size = layout.frame_bytes() as u64;
        let distance = SURROUNDINGS - LINE as u64 - size;
        let highest = self.recent_tops.highest_near(last, distance);
        let end = (highest + size).next_multiple_of(LINE as u64);
        let end = end.next_multiple_of(PAGE).min(end + self.reach);
        // The page before is known to be there if frames were seen in it.
        let page = last & !(PAGE - 1);
        let lowest = if self.pages.contains(&(page - PAGE)) { page - PAGE } else { page };
        let from = lowest.max(end - SURROUNDINGS - self.reach);
        let length = (end - from) as usize;
        self.surroundings_again.clear();
        let copies = [&mut self.arena, &mut self.surroundings_again];
        let into = copies.map(|copy| {
            copy.extend(length);
            &mut **copy
        });
        let (words, is_current): ([Address; 2], fn(u64, Address) -> bool) =
            match layout.thread_top_frame {
                TopFrame::InThread(offset) => ([field(thread, offset); 2], |_, _| true),
                TopFrame::InCFrame { cframe, current_frame } => (
                    [field(self.planned_cframe, current_frame), field(thread, cframe)],
                    |cframe, planned| cframe == planned,
                ),
            };
        let began = clock::monotonic_ns();
        let read = memory.read_at_once(words, from, into);
        let took_ns = clock::monotonic_ns().saturating_sub(began);
        match read {
            Ok([top, cframe]) if is_current(cframe, self.planned_cframe) => {
                let surroundings = Window { from, length, offset: 0 };
                self.windows.push(surroundings);
                self.surroundings = Some(surroundings);
                self.was_interrupted = took_ns > LONG_NS.max(LONG * self.usual_ns);
                self.usual_ns = (self.usual_ns * 15 + took_ns) / 16;
                Ok(top)
            }
            _ => {
                self.arena.clear();
                self.top(memory, layout, thread)
            }
        }
    }

    /// The top pointer and, in the same batch, everything that the previous walk had to read.
    fn top_with_plan(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        thread: Address,
    ) -> Result<Address, Torn> {
        let mut offset = 0;
        for &(from, length) in &self.planned {
            self.windows.push(Window { from, length, offset });
            offset += length;
        }
        self.arena.extend(offset);
        let mut cframe_bytes = [0; 8];
        let mut top_bytes = [0; 8];
        let (cframe_at, top_at) = match layout.thread_top_frame {
            TopFrame::InThread(offset) => (field(thread, offset), field(thread, offset)),
            TopFrame::InCFrame { cframe, current_frame } => {
                if self.planned_cframe == 0 {
                    self.top(memory, layout, thread)?;
                }
                (field(thread, cframe), field(self.planned_cframe, current_frame))
            }
        };
        let mut pieces = Vec::with_capacity(self.windows.len() + 2);
        pieces.push(Piece { from: cframe_at, into: &mut cframe_bytes });
        pieces.push(Piece { from: top_at, into: &mut top_bytes });
        let mut rest = &mut *self.arena;
        for &(from, length) in &self.planned {
            let (into, left) = rest.split_at_mut(length);
            pieces.push(Piece { from, into });
            rest = left;
        }
        let read = memory.read_pieces(&mut pieces);
        let is_current = match layout.thread_top_frame {
            TopFrame::InThread(_) => true,
            TopFrame::InCFrame { .. } => u64::from_ne_bytes(cframe_bytes) == self.planned_cframe,
        };
        if read.is_ok() && is_current {
            return Ok(u64::from_ne_bytes(top_bytes));
        }
        self.planned.clear();
        self.windows.clear();
        self.arena.clear();
        self.top(memory, layout, thread)
    }

    /// The copied bytes of a frame; what is not there yet is copied with its surroundings. Of two
    /// copies the later one counts: if the newest frame is only there, its callers must be of the same
    /// moment.
    fn bytes(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        at: Address,
        callee: Option<Address>,
    ) -> Result<&[u8], Torn> {
        let size = layout.frame_bytes();
        let searched = if memory.prefers_batches() { self.windows.len() } else { RECENT_WINDOWS };
        let found =
            self.windows.iter().rev().take(searched).find(|window| window.holds(at, size)).copied();
        self.use_page(at);
        let window = match found {
            Some(window) => window,
            None => self.copy(memory, layout, at, callee)?,
        };
        let start = window.offset + (at - window.from) as usize;
        self.arena.get(start..start + size).ok_or(Torn)
    }

    /// Never crosses into a page that the frame itself does not touch: only those are known to
    /// be mapped.
    fn copy(
        &mut self,
        memory: &impl Memory,
        layout: &Layout,
        at: Address,
        callee: Option<Address>,
    ) -> Result<Window, Torn> {
        let page = at & !(PAGE - 1);
        let frame_end = at.checked_add(layout.frame_bytes() as u64).ok_or(Torn)?;
        let is_below_callee = callee.is_none_or(|callee| callee.wrapping_sub(at) <= READ_AHEAD);
        let (from, end) = if memory.prefers_batches() {
            (page, frame_end.max(page.checked_add(PAGE).ok_or(Torn)?))
        } else if layout.has_data_stack() && is_below_callee {
            (page.max(at.saturating_sub(READ_AHEAD)), frame_end)
        } else {
            (at, frame_end)
        };
        let length = (end - from) as usize;
        let window = Window { from, length, offset: self.arena.extend(length) };
        memory.read(from, &mut self.arena[window.offset..])?;
        self.windows.push(window);
        Ok(window)
    }

    fn use_page(&mut self, at: Address) {
        let page = at & !(PAGE - 1);
        if self.pages.last() != Some(&page) && self.pages.len() < MOST_PLANNED {
            self.pages.push(page);
        }
    }

    /// Remembers the pages that this walk used, neighbours joined.
    fn plan(&mut self) {
        self.planned.clear();
        for &page in &self.pages {
            match self.planned.last_mut() {
                Some((from, length)) if page + PAGE == *from => {
                    *from = page;
                    *length += PAGE as usize;
                }
                _ => self.planned.push((page, PAGE as usize)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{CallLayout, tables};
    use crate::mem::MemoryImage;

    const THREAD: Address = 0x10_0000;

    fn frame(number: u64) -> Address {
        0x20_0000 + number * 0x1000
    }

    /// Frames `0..length`, newest first, the last of which was called by the one numbered `oldest`.
    fn walk(layout: &Layout, length: u64, oldest: Option<u64>) -> Result<usize, Torn> {
        let mut image = MemoryImage::new();
        let TopFrame::InThread(offset) = layout.thread_top_frame else { return Err(Torn) };
        image.insert(field(THREAD, offset), &frame(0).to_ne_bytes());
        for number in 0..length {
            let caller = if number + 1 < length { Some(number + 1) } else { oldest };
            let previous = field(frame(number), layout.frame_previous);
            image.insert(previous, &caller.map_or(0, frame).to_ne_bytes());
            image.insert(frame(number), &vec![0; layout.frame_bytes()]);
        }
        let mut frames = Vec::new();
        let walk = Walker::default().walk(&image, layout, THREAD, &mut frames)?;
        assert_eq!((walk.top, walk.truncated), (frame(0), false));
        Ok(frames.len())
    }

    #[test]
    fn a_circle_of_frames_is_no_stack() {
        let layout = &tables::V3_10;
        for length in [1, 2, 3, 7, 8, 9, 100] {
            assert_eq!(walk(layout, length, None), Ok(length as usize));
            for oldest in [0, length / 2, length - 1] {
                assert_eq!(walk(layout, length, Some(oldest)), Err(Torn), "{length}, {oldest}");
            }
        }
    }

    const CFRAME: Address = 0x11_0000;
    const STACK: Address = 0x30_0000;
    const CALLER: Address = STACK + 0x100;
    const CALLEE: Address = CALLER + 0x80;
    const FUNCTION: Address = 0x40_0000;

    /// A caller with one local variable, in a call, and what it calls.
    fn calling(layout: &Layout) -> MemoryImage {
        let call = layout.call.expect("3.11 on");
        let mut image = MemoryImage::new();
        let locals = CALLER + 72;
        let stack_end = locals + 8;
        let mut words = vec![(field(CALLEE, layout.frame_previous), CALLER)];
        words.push((field(CALLER, layout.frame_instruction), 0x50_0000));
        match call.stack_top {
            StackTop::Index { at, .. } => words.push((field(CALLER, at), 1)),
            StackTop::Pointer { at } => words.push((field(CALLER, at), stack_end)),
        }
        match call.callable {
            Callable::First => words.push((stack_end, FUNCTION | 1)),
            Callable::AfterMethod => words.push((stack_end + 8, FUNCTION)),
        }
        match layout.thread_top_frame {
            TopFrame::InThread(offset) => words.push((field(THREAD, offset), CALLEE)),
            TopFrame::InCFrame { cframe, current_frame } => {
                words.push((field(THREAD, cframe), CFRAME));
                words.push((field(CFRAME, current_frame), CALLEE));
            }
        }
        words.iter().for_each(|(at, word)| image.insert(*at, &word.to_ne_bytes()));
        image.insert(STACK, &[0; PAGE as usize]);
        image
    }

    /// Memory that changes: as it is copied at once, as it is copied once more, and as it is read later.
    struct Changing([MemoryImage; 3]);

    impl Memory for Changing {
        fn read(&self, from: Address, into: &mut [u8]) -> Result<(), crate::mem::Fault> {
            self.0[2].read(from, into)
        }
        fn read_at_once(
            &self,
            words: [Address; 2],
            from: Address,
            [into, again]: [&mut [u8]; 2],
        ) -> Result<[u64; 2], crate::mem::Fault> {
            self.0[0].read(from, into)?;
            self.0[1].read(from, again)?;
            Ok([self.0[0].word(words[0])?, self.0[0].word(words[1])?])
        }
        fn prefers_batches(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_frame_that_was_the_newest_once_is_copied_with_the_pointer() {
        let layout = &tables::V3_12;
        let TopFrame::InCFrame { current_frame, .. } = layout.thread_top_frame else { panic!() };
        let called = calling(layout);
        let mut calling = called.clone();
        assert_eq!(calling.poke(field(CFRAME, current_frame), &CALLER.to_ne_bytes()), Ok(()));
        let mut after = called.clone();
        let instruction = field(CALLER, layout.frame_instruction);
        assert_eq!(after.poke(instruction, &0x50_0010_u64.to_ne_bytes()), Ok(()));
        let moving = Changing([called.clone(), called.clone(), after]);

        // Where it was not, its caller is read as late as it is.
        for (was_seen, expected) in [(true, 0x50_0000), (false, 0x50_0010)] {
            let (mut walker, mut frames) = (Walker::default(), Vec::new());
            let mut walk = |memory: &MemoryImage| {
                assert!(walker.walk(memory, layout, THREAD, &mut frames).is_ok());
            };
            if was_seen {
                walk(&called);
            }
            (0..100).for_each(|_| walk(&calling));
            assert!(walker.walk(&moving, layout, THREAD, &mut frames).is_ok());
            let [callee, caller] = frames.as_slice() else { panic!("{frames:?}") };
            assert_eq!((callee.at, caller.at), (CALLEE, CALLER));
            assert_eq!(caller.instruction, expected);
        }
    }

    #[test]
    fn below_a_frame_in_the_c_stack_nothing_is_read() {
        const ENTRY: Address = 0x70_0800;
        let layout = &tables::V3_12;
        let mut image = calling(layout);
        let mut entry = vec![0; layout.frame_bytes()];
        let previous = field(CALLEE, layout.frame_previous);
        assert_eq!(image.poke(previous, &ENTRY.to_ne_bytes()), Ok(()));
        entry[layout.frame_previous..][..8].copy_from_slice(&CALLER.to_ne_bytes());
        entry[layout.frame_owner.unwrap()] = FIRST_FOREIGN_OWNER;
        image.insert(ENTRY, &entry);
        let mut frames = Vec::new();
        let memory = Changing([image.clone(), image.clone(), image]);
        assert!(Walker::default().walk(&memory, layout, THREAD, &mut frames).is_ok());
        assert_eq!(frames.iter().map(|frame| frame.at).collect::<Vec<_>>(), [CALLEE, CALLER]);
    }

    #[test]
    fn a_value_stack_tells_what_its_frame_calls() {
        let modern = CallLayout {
            stack_top: StackTop::Pointer { at: 64 },
            callable: Callable::First,
            ..tables::V3_12.call.expect("3.12 has it")
        };
        let modern = Layout {
            thread_top_frame: TopFrame::InThread(72),
            call: Some(modern),
            ..tables::V3_12.clone()
        };
        for layout in [&tables::V3_11, &tables::V3_12, &modern] {
            let image = calling(layout);
            let (mut walker, mut frames) = (Walker::default(), Vec::new());
            // Only the second walk knows where to look.
            for _ in 0..2 {
                assert!(walker.walk(&image, layout, THREAD, &mut frames).is_ok());
            }
            let [_, caller] = frames.as_slice() else { panic!("{frames:?}") };
            assert_eq!(walker.called(layout, caller), Some(FUNCTION));
            let elsewhere = RawFrame { instruction: 0x50_0002, ..*caller };
            assert_eq!(walker.called(layout, &elsewhere), None);

            // Neither the stack's end nor what lies there may change meanwhile.
            for at in [CALLER + 64, CALLER + 80, CALLER + 88] {
                let mut changed = image.clone();
                assert_eq!(changed.poke(at, &[2]), Ok(()));
                let memory = Changing([image.clone(), changed, image.clone()]);
                assert!(walker.walk(&memory, layout, THREAD, &mut frames).is_ok());
                let is_told = walker.called(layout, &frames[1]) == Some(FUNCTION);
                let matters = at < CALLER + 88 || layout.call != modern.call;
                assert_eq!(is_told, !matters, "{at:#x}");
            }
        }
    }
}
