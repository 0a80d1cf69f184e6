//! Python strings and bytes.

use crate::layout::Layout;
use crate::mem::{Address, Fault, Memory, field, word_at, word32_at};

/// Longest string that is read, in characters; what is longer is cut and ends in an ellipsis.
const MOST_CHARACTERS: usize = 4096;
/// Longest `bytes` object that is read.
const MOST_BYTES: usize = 4 << 20;

/// The text of a `str` object. Lone surrogates become U+FFFD.
pub fn text(memory: &impl Memory, layout: &Layout, object: Address) -> Result<Box<str>, Fault> {
    let mut head = vec![0; layout.str_ascii_data];
    memory.read(object, &mut head)?;
    let length = usize::try_from(word_at(&head, layout.str_length)).map_err(|_| Fault)?;
    let state = word32_at(&head, layout.str_state) >> layout.str_kind_shift;
    let width = match state & 7 {
        kind @ (1 | 2 | 4) => kind as usize,
        _ => return Err(Fault),
    };
    let is_compact = state & 8 != 0;
    let is_ascii = state & 16 != 0;
    let data = if !is_compact {
        // A string made by a subclass or the legacy API: the data lies elsewhere
        // (`PyUnicodeObject.data`, right behind the compact head).
        memory.word(field(object, layout.str_compact_data))?
    } else if is_ascii {
        field(object, layout.str_ascii_data)
    } else {
        field(object, layout.str_compact_data)
    };
    let mut bytes = vec![0; length.min(MOST_CHARACTERS) * width];
    memory.read(data, &mut bytes)?;
    let mut text: String = match width {
        1 => bytes.iter().map(|&byte| char::from(byte)).collect(),
        2 => bytes
            .chunks_exact(2)
            .map(|unit| character(u16::from_ne_bytes([unit[0], unit[1]]).into()))
            .collect(),
        _ => bytes.chunks_exact(4).map(|unit| character(word32_at(unit, 0))).collect(),
    };
    if length > MOST_CHARACTERS {
        text.push('…');
    }
    Ok(text.into())
}

/// Whether an object is the `str` of this short ASCII text; cheaper than to read it.
pub fn is_ascii(memory: &impl Memory, layout: &Layout, object: Address, text: &str) -> bool {
    const MOST_BYTES: usize = 128;
    let mut bytes = [0; MOST_BYTES];
    let data = layout.str_ascii_data;
    let Some(bytes) = bytes.get_mut(..data + text.len()) else { return false };
    if memory.read(object, bytes).is_err() {
        return false;
    }
    let state = word32_at(bytes, layout.str_state) >> layout.str_kind_shift;
    // One byte a character, compact, ASCII.
    state & 31 == 1 | 8 | 16
        && word_at(bytes, layout.str_length) == text.len() as u64
        && bytes.ends_with(text.as_bytes())
}

/// The contents of a `bytes` object.
pub fn bytes(memory: &impl Memory, layout: &Layout, object: Address) -> Result<Box<[u8]>, Fault> {
    let size = memory.word(field(object, layout.bytes_size))?;
    let size = usize::try_from(size).ok().filter(|&size| size <= MOST_BYTES).ok_or(Fault)?;
    let mut bytes = vec![0; size];
    memory.read(field(object, layout.bytes_data), &mut bytes)?;
    Ok(bytes.into())
}

fn character(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}
