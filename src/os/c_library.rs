//! What has to be known of the C library that the process uses.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use super::symbols;

/// Where in a `pthread_cond_t` the number is that counts who waits, in steps of eight: `__wrefs` of
/// glibc (`sysdeps/nptl/bits/thread-shared-types.h`, 2.25 on). `None` for other C libraries.
pub fn condition_waiters() -> Option<usize> {
    let version = symbols::dynamic(c"gnu_get_libc_version")?;
    // SAFETY: the function of that name takes nothing and returns a text that stays.
    let version = unsafe {
        let version: extern "C" fn() -> *const c_char = std::mem::transmute(version as usize);
        CStr::from_ptr(version())
    };
    place(version.to_str().ok()?)
}

/// `__g_refs` went away in 2.41.
fn place(version: &str) -> Option<usize> {
    let (major, minor) = version.split_once('.')?;
    let digits = minor.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(minor.len());
    match (major.parse::<u32>().ok()?, minor[..digits].parse::<u32>().ok()?) {
        (2, 25..=40) => Some(36),
        (2, 41..) => Some(28),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    #[test]
    fn the_place_depends_on_the_version() {
        assert_eq!(["2.36", "2.40-git", "2.41", "2.43"].map(place), [36, 36, 28, 28].map(Some));
        assert_eq!(["2.17", "3.0", "musl", ""].map(place), [None; 4]);
    }

    #[test]
    fn whoever_waits_is_counted_there() {
        let place = condition_waiters().expect("these tests run with glibc");
        // Rust's own are no `pthread_cond_t`.
        let mut condition = libc::PTHREAD_COND_INITIALIZER;
        let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
        let at = [&raw mut condition as usize, &raw mut mutex as usize];
        let (ready, told) = (Mutex::new(()), Condvar::new());
        // SAFETY: both are initialised, and outlive the thread that uses them.
        let count = || unsafe { ((at[0] + place) as *const u32).read_volatile() >> 3 };
        assert_eq!(count(), 0);
        std::thread::scope(|scope| {
            let guard = ready.lock().unwrap();
            scope.spawn(|| unsafe {
                // SAFETY: as above.
                let [condition, mutex] = [at[0] as *mut libc::pthread_cond_t as usize, at[1]];
                libc::pthread_mutex_lock(mutex as *mut _);
                drop(ready.lock());
                told.notify_one();
                libc::pthread_cond_wait(condition as *mut _, mutex as *mut _);
                libc::pthread_mutex_unlock(mutex as *mut _);
            });
            drop(told.wait(guard));
            // SAFETY: as above. Whoever has the mutex now comes after the wait has begun.
            unsafe {
                libc::pthread_mutex_lock(at[1] as *mut _);
                assert_eq!(count(), 1);
                libc::pthread_cond_signal(at[0] as *mut _);
                libc::pthread_mutex_unlock(at[1] as *mut _);
            }
        });
        assert_eq!(count(), 0);
    }
}
