//! The sentence about a thread's last failure, kept where C code can read it.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::c_char;

/// Longest sentence that is kept, with the NUL at its end.
const BYTES: usize = 512;

thread_local! {
    // Neither allocated nor dropped: a thread may ask for it until its very end.
    static SENTENCE: UnsafeCell<[u8; BYTES]> = const { UnsafeCell::new([0; BYTES]) };
}

/// Keeps a sentence for this thread, cut off where it is too long.
pub(super) fn remember(sentence: &str) {
    let fits = |end: &usize| sentence.is_char_boundary(*end);
    let length = (0..=sentence.len().min(BYTES - 1)).rev().find(fits).unwrap_or(0);
    SENTENCE.with(|kept| {
        // SAFETY: only this thread has a pointer to the buffer, and no reference to it is held.
        let buffer = unsafe { &mut *kept.get() };
        buffer[..length].copy_from_slice(&sentence.as_bytes()[..length]);
        buffer[length] = 0;
    });
}

/// This thread's sentence, as a C string.
pub(super) fn remembered() -> *const c_char {
    SENTENCE.with(|kept| kept.get().cast_const().cast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn kept() -> String {
        // SAFETY: the buffer always ends with a NUL and lives as long as the thread.
        unsafe { CStr::from_ptr(remembered()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn sentences_are_kept_by_thread_and_cut_between_characters() {
        assert_eq!(kept(), "");
        remember("the first, which is longer");
        remember("the second");
        assert_eq!(kept(), "the second");
        std::thread::spawn(|| assert_eq!(kept(), "")).join().unwrap();
        remember(&"…".repeat(BYTES));
        assert_eq!(kept(), "…".repeat((BYTES - 1) / 3));
    }
}
