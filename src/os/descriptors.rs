//! Work on files that takes none of the application's descriptors, not even for a moment.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::process;
use super::thread::{self, BlockedSignals};

thread_local! {
    /// Whether the calling thread has descriptors of its own.
    static ARE_OWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether the process's descriptors are an application's. The commands' are their own.
static ARE_AN_APPLICATIONS: AtomicBool = AtomicBool::new(false);

/// How many threads the kernel may count more than usual.
static HELPERS: AtomicU32 = AtomicU32::new(0);

/// From now on the process's descriptors are not to be touched: an application has them.
pub fn leave_alone() {
    ARE_AN_APPLICATIONS.store(true, Ordering::SeqCst);
}

/// Does some work where every number of a descriptor is free. An application that opens a file may
/// count on its getting the lowest number that it left free itself, and may close or replace
/// whatever it finds under any other. The work must not use what was opened elsewhere.
///
/// To the kernel it is another thread that does the work, with descriptors of its own; to
/// everything else it is the calling one, which stands still until then. Where there can be none,
/// the work is done with the application's descriptors.
pub fn apart<T>(work: impl FnOnce() -> T) -> T {
    if are_own() || !ARE_AN_APPLICATIONS.load(Ordering::SeqCst) {
        return work();
    }
    let mut errand = Errand { work: Some(work), ended: None };
    HELPERS.fetch_add(1, Ordering::SeqCst);
    if let Some(stack) = Stack::new() {
        let blocked = BlockedSignals::all();
        let tid = errand.run_on(&stack, thread::is_filtered());
        drop(blocked);
        // A filter of system calls may have ended it before it could.
        ARE_OWN.set(false);
        wait_until_gone(tid);
    }
    HELPERS.fetch_sub(1, Ordering::SeqCst);
    match (errand.ended, errand.work) {
        (Some(Ok(result)), _) => result,
        (Some(Err(panic)), _) => resume_unwind(panic),
        (None, Some(work)) => work(),
        (None, None) => unreachable!("what was begun has ended"),
    }
}

/// Some work and what has become of it.
struct Errand<F, T> {
    work: Option<F>,
    ended: Option<std::thread::Result<T>>,
}

impl<T, F: FnOnce() -> T> Errand<F, T> {
    /// Returns the kernel's id of the thread that has done it; negative where there was none. Some
    /// filters of system calls end the process for one that they do not know: where there `is_filtered`,
    /// the thread makes none but the commonest, and begins with copies of all descriptors.
    ///
    /// It is none of the C library's threads, which need the locks of `malloc` and of the dynamic
    /// loader: the application may hold those while it waits for the profile, or while a library
    /// that it imports takes long to initialise.
    fn run_on(&mut self, stack: &Stack, is_filtered: bool) -> libc::c_int {
        const AS_A_THREAD: libc::c_int = libc::CLONE_VM
            | libc::CLONE_THREAD
            | libc::CLONE_SIGHAND
            | libc::CLONE_FS
            | libc::CLONE_SYSVSEM
            | libc::CLONE_CHILD_CLEARTID;
        let runs = AtomicU32::new(1);
        let (files, begin): (_, Entry) = match is_filtered {
            true => (0, Self::begin_with_copies),
            false => (libc::CLONE_FILES, Self::begin),
        };
        // SAFETY: two threads use this one's thread-locals and this value, but never at once: until
        // the other one has ended, this one only waits, with all signals blocked. The stack is not
        // in use, and it and `runs` stay until then.
        unsafe {
            let this: *mut libc::c_void = (&raw mut *self).cast();
            let nothing = null_mut::<libc::c_void>();
            let flags = AS_A_THREAD | files;
            let tid = libc::clone(begin, stack.top(), flags, this, nothing, nothing, runs.as_ptr());
            while tid > 0 && runs.load(Ordering::SeqCst) != 0 {
                // The kernel's own wake at a thread's end is not a private one.
                let forever = null_mut::<libc::timespec>();
                libc::syscall(libc::SYS_futex, runs.as_ptr(), libc::FUTEX_WAIT, 1, forever);
            }
            tid
        }
    }

    extern "C" fn begin(this: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `run_on` passes what that asks for.
        unsafe { Self::work(this, take_own()) }
    }

    extern "C" fn begin_with_copies(this: *mut libc::c_void) -> libc::c_int {
        close_all();
        // SAFETY: as above.
        unsafe { Self::work(this, true) }
    }

    /// # Safety
    ///
    /// `this` must be a value that nobody else uses meanwhile.
    unsafe fn work(this: *mut libc::c_void, are_own: bool) -> libc::c_int {
        // SAFETY: the caller vouches for it.
        let errand = unsafe { &mut *this.cast::<Self>() };
        ARE_OWN.set(are_own);
        errand.ended = errand.work.take().map(|work| catch_unwind(AssertUnwindSafe(work)));
        0
    }
}

type Entry = extern "C" fn(*mut libc::c_void) -> libc::c_int;

/// Until the kernel does not count a thread any more that has done its work.
fn wait_until_gone(tid: libc::c_int) {
    /// Who only yields can keep a thread from ending where processors are busy.
    const PAUSE: Duration = Duration::from_micros(20);
    /// A debugger may keep it, and another thread may have its id by now.
    const MOST_PAUSES: u32 = 200;
    const NO_SIGNAL: libc::c_int = 0;
    let Ok(tid @ 1..) = u32::try_from(tid) else { return };
    for _ in 0..MOST_PAUSES {
        if !thread::send_signal(process::pid(), tid, NO_SIGNAL) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Memory for a thread's stack, with a page below it that must not be touched.
struct Stack(*mut libc::c_void);

impl Stack {
    const BYTES: usize = thread::STACK_BYTES;
    /// A multiple of any page's size.
    const GUARD: usize = 64 << 10;

    fn new() -> Option<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing, and is this
        // value's own.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
            let base = libc::mmap(null_mut(), Self::BYTES, protection, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return None;
            }
            let stack = Self(base);
            (libc::mprotect(base, Self::GUARD, libc::PROT_NONE) == 0).then_some(stack)
        }
    }

    /// Stacks grow downwards. The end is that of a page, and so a multiple of 16.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(Self::BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own, and no thread is on it any more.
        unsafe { libc::munmap(self.0, Self::BYTES) };
    }
}

/// Whether every descriptor that the calling thread opens is its own, whatever number it has.
pub fn are_own() -> bool {
    ARE_OWN.get()
}

/// Whether the process may have a thread more than usual because of this.
pub fn have_helper() -> bool {
    HELPERS.load(Ordering::SeqCst) > 0
}

/// The thread that may have helped is the parent's.
pub fn forget_after_fork() {
    HELPERS.store(0, Ordering::SeqCst);
}

/// Gives the calling thread an empty table of descriptors that nobody else uses. Returns whether it
/// has.
fn take_own() -> bool {
    // SAFETY: both calls take integers and concern the calling thread alone.
    unsafe {
        let flags = libc::CLOSE_RANGE_UNSHARE;
        if libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, flags) == 0 {
            return true;
        }
        // Before Linux 5.9.
        let is_own = libc::unshare(libc::CLONE_FILES) == 0;
        if is_own {
            close_all();
        }
        is_own
    }
}

/// Closes the copies of the process's descriptors that the calling thread has to itself: they would
/// keep files open that are closed meanwhile.
fn close_all() {
    // SAFETY: nothing in this thread uses a descriptor.
    let close = |number| unsafe { libc::close(number) };
    // There may be no room for one more, by which they are listed.
    close(libc::STDIN_FILENO);
    let names = fs::read_dir("/proc/thread-self/fd").into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let numbers: Vec<libc::c_int> = numbers.collect();
    for number in numbers {
        close(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

    #[test]
    fn other_threads_do_not_see_what_is_opened() {
        leave_alone();
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
        assert!(!are_own());
        assert!(
            fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|it| it.ends_with("null"))
        );
    }

    #[test]
    fn what_is_closed_there_stays_open_here() {
        leave_alone();
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
    fn under_a_filter_they_are_its_own_as_well() {
        let here = File::open("/dev/null").unwrap();
        let numbers = || fs::read_dir("/proc/thread-self/fd").unwrap().count();
        let mut errand = Errand { work: Some(numbers), ended: None };
        assert!(errand.run_on(&Stack::new().unwrap(), true) > 0);
        // That by which they are listed.
        assert!(matches!(errand.ended, Some(Ok(1))));
        ARE_OWN.set(false);
        here.metadata().unwrap();
    }

    #[test]
    fn a_panic_goes_on_in_who_waits() {
        leave_alone();
        let panicked = std::panic::catch_unwind(|| apart(|| assert_eq!(1, 2)));
        assert!(panicked.is_err() && !are_own());
    }
}
