//! Work on files that takes none of the application's descriptors, not even for a moment.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use super::thread;

thread_local! {
    /// Whether the calling thread has descriptors of its own.
    static ARE_OWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether there is, or may be, a thread more than usual.
static HELPS: AtomicBool = AtomicBool::new(false);

/// Does some work where every number of a descriptor is free, and waits for it. An application that
/// opens a file may count on its getting the lowest number that it left free itself, and may close
/// or replace whatever it finds under any other. A thread does the work that has descriptors of its
/// own; where there can be none, the calling thread does.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if are_own() {
        return work();
    }
    let mut work = Some(work);
    let mut result = None;
    HELPS.store(true, Ordering::SeqCst);
    let ended = thread::run("pysamp-files", || {
        ARE_OWN.set(take_own());
        result = work.take().map(|work| work());
    });
    HELPS.store(false, Ordering::SeqCst);
    if let Ok(Err(panic)) = ended {
        std::panic::resume_unwind(panic);
    }
    match (result, work) {
        (Some(result), _) => result,
        (None, Some(work)) => work(),
        (None, None) => unreachable!("the work was done, or there was no thread to do it"),
    }
}

/// Whether every descriptor that the calling thread opens is its own, whatever number it has.
pub fn are_own() -> bool {
    ARE_OWN.get()
}

/// Whether the process may have a thread more than usual because of this.
pub fn have_helper() -> bool {
    HELPS.load(Ordering::SeqCst)
}

/// The thread that may have helped is the parent's.
pub fn forget_after_fork() {
    HELPS.store(false, Ordering::SeqCst);
}

/// Gives the calling thread a table of descriptors that nobody else uses: an empty one, or, before
/// Linux 5.9, one with what the process has, which goes with the thread. Returns whether it has.
fn take_own() -> bool {
    // SAFETY: both calls take integers and concern the calling thread alone.
    unsafe {
        let flags = libc::CLOSE_RANGE_UNSHARE;
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, flags) == 0
            || libc::unshare(libc::CLONE_FILES) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

    #[test]
    fn other_threads_do_not_see_what_is_opened() {
        let here = File::open("/dev/null").unwrap();
        let number = here.as_raw_fd();
        let is_apart = apart(|| {
            assert!(are_own());
            // Nothing is there but what is opened.
            let names = fs::read_dir("/proc/thread-self/fd").unwrap().count();
            let own = File::open("/dev/zero").unwrap();
            (names, own.as_raw_fd(), apart(are_own))
        });
        assert_eq!(is_apart, (1, 0, true));
        assert!(!are_own() && !have_helper());
        assert!(
            fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|it| it.ends_with("null"))
        );
    }

    #[test]
    fn what_is_closed_there_stays_open_here() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let number = OwnedFd::from(writer).into_raw_fd();
        apart(|| {
            // SAFETY: the number names nothing in this thread.
            assert_eq!(unsafe { libc::close(number) }, -1);
        });
        // SAFETY: the descriptor was given up above, and is open.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut reader, &mut rest).unwrap();
        assert_eq!(rest, "");
    }

    #[test]
    fn a_panic_goes_on_in_who_waits() {
        let panicked = std::panic::catch_unwind(|| apart(|| assert_eq!(1, 2)));
        assert!(panicked.is_err() && !have_helper());
    }
}
