//! Where greenlet keeps what it knows of a thread: in a variable of the thread's own.
//!
//! `g_thread_state_global` (`TThreadStateCreator.hpp`, `greenlet_thread_state.hpp` up to 3.0) has no
//! address that could be read anywhere. But a `pthread_t` of glibc is the address of the thread's
//! control block (`tcbhead_t` in `sysdeps/x86_64/nptl/tls.h`), which leads to the blocks of all
//! libraries' variables (`dtv_t` in `sysdeps/generic/dl-dtv.h`), and what greenlet knows is told by
//! what must hold of it. Where it lies in one thread, it does in all.

use std::collections::HashMap;

use super::{Reading, Shape};
use crate::hash::FastHash;
use crate::mem::{Address, Memory, PAGE, field};
use crate::reader::Torn;

/// Most libraries with variables of threads.
const MOST_LIBRARIES: u64 = 1024;
/// How much of a library's variables is looked at.
const MOST_VARIABLES: usize = 1024;
/// Most looks at a thread between two searches in it.
const MOST_SKIPPED: u32 = 16;
/// Most threads that are kept apart.
const MOST_THREADS: usize = 4096;
/// Programs have their memory above the first page and in the lower half.
const PROGRAM: std::ops::Range<Address> = PAGE..1 << 47;

/// Where the variable is, once known.
#[derive(Debug, Default)]
pub(super) struct Locals {
    /// The library's number, and the offset in its block.
    place: Option<(u64, usize)>,
    /// By thread that was searched without success: looks until the next search, and between the
    /// next two.
    skipping: HashMap<Address, (u32, u32), FastHash>,
}

/// What a search found.
struct Found {
    /// As in [`Locals`].
    place: (u64, usize),
    /// greenlet's state of the thread.
    state: Address,
    shape: Shape,
}

impl<M: Memory> Reading<'_, M> {
    /// greenlet's state of a thread; `None` if there is none.
    pub(super) fn thread_state(
        &mut self,
        thread: Address,
        ident: u64,
    ) -> Result<Option<Address>, Torn> {
        let Some((library, offset)) = self.reader.locals.place else {
            return self.search_in_time(thread, ident);
        };
        let Some((blocks, count)) = self.blocks(ident)? else { return Ok(None) };
        if library > count {
            return Ok(None);
        }
        let memory = self.objects.memory;
        let block = memory.word(block_at(blocks, library))?;
        if !PROGRAM.contains(&block) {
            return Ok(None);
        }
        // 1 before it is made, 0 once it is gone.
        let state = memory.word(field(block, offset))?;
        Ok(PROGRAM.contains(&state).then_some(state))
    }

    /// The blocks of a thread's variables, and how many there may be.
    fn blocks(&self, ident: u64) -> Result<Option<(Address, u64)>, Torn> {
        let memory = self.objects.memory;
        // It begins with its own address, the blocks, and its own address again.
        if !PROGRAM.contains(&ident)
            || memory.word(ident)? != ident
            || memory.word(field(ident, 16))? != ident
        {
            return Ok(None);
        }
        let blocks = memory.word(field(ident, 8))?;
        if !PROGRAM.contains(&blocks) {
            return Ok(None);
        }
        let count = memory.word(blocks - 16)?;
        Ok((count <= MOST_LIBRARIES).then_some((blocks, count)))
    }

    /// A search takes tens of microseconds, so a thread that has no greenlets is rarely searched.
    fn search_in_time(&mut self, thread: Address, ident: u64) -> Result<Option<Address>, Torn> {
        let skipping = &mut self.reader.locals.skipping;
        if skipping.len() >= MOST_THREADS {
            skipping.clear();
        }
        let (left, next) = skipping.entry(thread).or_insert((0, 1));
        if *left > 0 {
            *left -= 1;
            return Ok(None);
        }
        (*left, *next) = (*next, (*next * 2).min(MOST_SKIPPED));
        let Some(Found { place, state, shape }) = self.search(ident)? else { return Ok(None) };
        if !self.has_context(thread)? {
            return Ok(None);
        }
        self.reader.locals.place = Some(place);
        self.reader.shape = Some(shape);
        Ok(Some(state))
    }

    fn search(&mut self, ident: u64) -> Result<Option<Found>, Torn> {
        let memory = self.objects.memory;
        let Some((blocks, count)) = self.blocks(ident)? else {
            self.reader.has_unknown |= ident != 0;
            return Ok(None);
        };
        for library in 1..=count {
            let block = memory.word(block_at(blocks, library))?;
            if !PROGRAM.contains(&block) || block & 7 != 0 {
                continue;
            }
            for offset in (0..MOST_VARIABLES).step_by(8) {
                let Ok(state) = memory.word(field(block, offset)) else { break };
                if PROGRAM.contains(&state)
                    && state & 7 == 0
                    && let Ok(Some(main)) = self.main_of_thread(state)
                {
                    // The thread may be making it.
                    let Some(shape) = self.learn(state, main)? else {
                        self.reader.has_unknown = true;
                        return Ok(None);
                    };
                    self.reader.has_unknown = false;
                    return Ok(Some(Found { place: (library, offset), state, shape }));
                }
            }
        }
        Ok(None)
    }

    /// The main greenlet in greenlet's state of a thread; `None` if it is something else.
    fn main_of_thread(&self, state: Address) -> Result<Option<Address>, Torn> {
        let memory = self.objects.memory;
        let (main, current) = (memory.word(state)?, memory.word(field(state, 8))?);
        Ok((self.is_greenlet(main)? && self.is_greenlet(current)?).then_some(main))
    }

    /// Whether a thread's context is where it should be, before what counts its exchanges.
    fn has_context(&self, thread: Address) -> Result<bool, Torn> {
        let at = field(thread, self.layout().states.thread_context_version - 8);
        Ok(match self.objects.memory.word(at)? {
            0 => true,
            context => &*self.class_name(self.objects.type_of(context)?)? == "Context",
        })
    }
}

/// Where the pointer to a library's block is.
fn block_at(blocks: Address, library: u64) -> Address {
    blocks.wrapping_add(16 * library)
}
