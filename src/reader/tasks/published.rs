//! The table of offsets in which `_asyncio` publishes its tasks, from 3.14 on.
//!
//! It has an ELF section of its own, `.AsyncioDebug` (`Modules/_asynciomodule.c`), but sections are
//! not loaded, and a sampler opens no files. So it is looked for in the memory around something else of
//! the same library, and told by what must hold of its numbers.

use crate::mem::{Address, Memory, PAGE, field, word_at};

/// Offsets in bytes, named `structure_field`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Published {
    pub task_awaited_by: usize,
    pub task_awaited_by_is_set: usize,
    pub task_node: usize,
    pub interpreter_tasks_head: usize,
    pub thread_running_loop: usize,
    pub thread_running_task: usize,
    pub thread_tasks_head: usize,
}

/// How far is looked in each direction.
const MOST_PAGES: u64 = 4096;
/// Seven of a task, two of an interpreter, four of a thread.
const WORDS: usize = 13;
/// No interpreter or thread state is larger.
const MOST_BYTES: u64 = 1 << 24;

/// Looks for the table around an address in the data of the library. The size of a task and where it
/// keeps its coroutine are known.
pub fn find(
    memory: &impl Memory,
    around: Address,
    task_bytes: u64,
    task_coro: usize,
) -> Option<Published> {
    let start = around & !(PAGE - 1);
    let up = (0..MOST_PAGES).map(|page| start.checked_add(page * PAGE));
    let down = (1..MOST_PAGES).map(|page| start.checked_sub(page * PAGE));
    in_pages(memory, up, task_bytes, task_coro)
        .or_else(|| in_pages(memory, down, task_bytes, task_coro))
}

fn in_pages(
    memory: &impl Memory,
    pages: impl Iterator<Item = Option<Address>>,
    task_bytes: u64,
    task_coro: usize,
) -> Option<Published> {
    let mut bytes = [0; PAGE as usize];
    for page in pages {
        let page = page?;
        // Beyond what is mapped there is another library, if anything.
        memory.read(page, &mut bytes).ok()?;
        for at in (0..bytes.len()).step_by(8) {
            if word_at(&bytes, at) == task_bytes {
                let mut table = [0; WORDS * 8];
                if memory.read(field(page, at), &mut table).is_ok()
                    && let Some(found) = described(&table, task_bytes, task_coro)
                {
                    return Some(found);
                }
            }
        }
    }
    None
}

fn described(table: &[u8], task_bytes: u64, task_coro: usize) -> Option<Published> {
    let word = |index: usize| word_at(table, index * 8);
    let within = |index: usize, size: u64| {
        let offset = word(index);
        (size <= MOST_BYTES && offset < size && offset > 0).then_some(offset as usize)
    };
    let task = |index| within(index, task_bytes);
    let interpreter = |index| within(index, word(7));
    let thread = |index| within(index, word(9));
    if task(5)? != task_coro || task(1)? != task_coro + 8 || task(3)? >= task(4)? {
        return None;
    }
    Some(Published {
        task_awaited_by: task(2)?,
        task_awaited_by_is_set: task(4)?,
        task_node: task(6)?,
        interpreter_tasks_head: interpreter(8)?,
        thread_running_loop: thread(10)?,
        thread_running_task: thread(11)?,
        thread_tasks_head: thread(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::MemoryImage;

    const TABLE: [u64; WORDS] =
        [168, 136, 96, 108, 109, 128, 152, 225_864, 10_880, 936, 864, 872, 880];

    fn image(table: &[u64], at: Address) -> MemoryImage {
        let mut image = MemoryImage::new();
        image.insert(0x10_000, &[0; 4 * PAGE as usize]);
        for (index, word) in table.iter().enumerate() {
            image.poke(at + 8 * index as u64, &word.to_ne_bytes()).unwrap();
        }
        image
    }

    #[test]
    fn the_table_is_found_on_both_sides_and_across_pages() {
        for at in [0x10_020, 0x12_040, 0x10_FE0, 0x11_FC0] {
            let found = find(&image(&TABLE, at), 0x11_100, 168, 128).unwrap();
            assert_eq!((found.task_awaited_by, found.thread_tasks_head), (96, 880), "{at:#x}");
        }
    }

    #[test]
    fn other_numbers_are_no_table() {
        assert_eq!(find(&image(&TABLE, 0x11_000), 0x11_100, 160, 128), None);
        assert_eq!(find(&image(&TABLE, 0x11_000), 0x11_100, 168, 120), None);
        let mut other = TABLE;
        other[10] = 936;
        assert_eq!(find(&image(&other, 0x11_000), 0x11_100, 168, 128), None);
        assert_eq!(find(&image(&TABLE, 0x11_000), 0x20_000, 168, 128), None);
    }
}
