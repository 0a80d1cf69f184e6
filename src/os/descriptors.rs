//! Descriptors of a thread's own, so that what the application closes, replaces or counts is never one of ours,
//! and what it has closed is not kept open by us; and the process's stderr from there.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use super::process;

/// Whether `/proc` is there, once that is known. Children know it from their parents: what many of them look up
/// there the kernel has to clear away one by one.
static HAS_PROC: OnceLock<bool> = OnceLock::new();

thread_local! {
    static ARE_OWN: Cell<bool> = const { Cell::new(false) };
}

/// The first thread's, which are the process's.
const DIRECTORY: &CStr = c"/proc/self/fd";
const STDERR: &CStr = c"/proc/self/fd/2";

/// Device and file.
pub type Identity = (u64, u64);

/// Gives the calling thread descriptors of its own, none of them open. The process's stay as they are. A program
/// that closes or replaces whatever it finds open, as many do after a fork, would else do so to ours, and the
/// number be another file's when it is used the next time.
pub fn take_own() {
    // Where `/proc` is missing stderr could not be found any more.
    if !*HAS_PROC.get_or_init(|| status_at(DIRECTORY).is_some()) {
        return;
    }
    const ALL: libc::c_uint = libc::c_uint::MAX;
    // SAFETY: the system calls take integers. What is closed is in a table that is the thread's own, which
    // both calls have made before they return 0, so nobody else sees it.
    let are_own = unsafe {
        libc::syscall(libc::SYS_close_range, 0, ALL, libc::CLOSE_RANGE_UNSHARE) == 0
            || libc::unshare(libc::CLONE_FILES) == 0 && {
                close_each();
                true
            }
    };
    ARE_OWN.set(are_own);
}

/// Closes all descriptors, for kernels before 5.9.
///
/// # Safety
///
/// They have to be the calling thread's alone.
unsafe fn close_each() {
    /// Where they cannot be listed.
    const USUAL: libc::c_int = 4096;
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<libc::c_int>().ok();
    let listed = std::fs::read_dir("/proc/thread-self/fd");
    let listed: Option<Vec<libc::c_int>> =
        listed.ok().map(|entries| entries.flatten().filter_map(number).collect());
    for descriptor in listed.unwrap_or_else(|| (0..USUAL).collect()) {
        // SAFETY: close takes an integer; whose it is the caller has promised.
        unsafe { libc::close(descriptor) };
    }
}

/// Whether the calling thread's descriptors are its own.
pub fn are_own() -> bool {
    ARE_OWN.get()
}

/// What the process's descriptor 2 is; `None` if it is closed.
pub fn stderr_identity() -> Option<Identity> {
    stderr_status().map(|status| (status.st_dev, status.st_ino))
}

fn stderr_status() -> Option<libc::stat> {
    if are_own() {
        return status_at(STDERR);
    }
    // SAFETY: an all-zero stat is a valid value and valid for writing.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        (libc::fstat(libc::STDERR_FILENO, &mut status) == 0).then_some(status)
    }
}

fn status_at(path: &CStr) -> Option<libc::stat> {
    // SAFETY: the path is a string, and an all-zero stat is a valid value and valid for writing.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        (libc::stat(path.as_ptr(), &mut status) == 0).then_some(status)
    }
}

/// Writes to the process's stderr. False if it cannot be reached from this thread.
pub fn write_to_stderr(bytes: &[u8]) -> bool {
    let borrowed = if are_own() { borrow_stderr() } else { None };
    let descriptor = match &borrowed {
        Some(borrowed) => borrowed.as_raw_fd(),
        None if are_own() => return false,
        None => libc::STDERR_FILENO,
    };
    // SAFETY: the buffer is valid for its length. Errors are of no consequence.
    unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
    true
}

/// The process's descriptor 2 among this thread's own.
fn borrow_stderr() -> Option<OwnedFd> {
    let kind = stderr_status()?.st_mode & libc::S_IFMT;
    // Where there is no position that others are at, opening it again is as good. It needs no system call that
    // a program is likely to have forbidden itself.
    match kind {
        libc::S_IFREG | libc::S_IFSOCK => duplicate_stderr().or_else(reopen_stderr),
        _ => reopen_stderr().or_else(duplicate_stderr),
    }
}

fn reopen_stderr() -> Option<OwnedFd> {
    let flags =
        libc::O_WRONLY | libc::O_APPEND | libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: the path is a string; the descriptor, if there is one, is nobody else's. Without a reader
    // nothing is waited for, and a full pipe is, as by everybody else.
    unsafe {
        let opened = owned(libc::open(STDERR.as_ptr(), flags))?;
        libc::fcntl(opened.as_raw_fd(), libc::F_SETFL, libc::O_APPEND);
        Some(opened)
    }
}

fn duplicate_stderr() -> Option<OwnedFd> {
    // SAFETY: the system calls take integers; the descriptors, if there are any, are nobody else's.
    unsafe {
        let process = owned(libc::syscall(libc::SYS_pidfd_open, process::pid(), 0) as libc::c_int)?;
        let number = libc::STDERR_FILENO;
        owned(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) as libc::c_int)
    }
}

/// # Safety
///
/// It has to be negative, or a descriptor that nobody else has.
unsafe fn owned(descriptor: libc::c_int) -> Option<OwnedFd> {
    // SAFETY: as the caller has promised.
    (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Read;

    /// In a thread with descriptors of its own.
    fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                take_own();
                assert!(are_own());
                work()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn nobody_sees_what_a_thread_opens() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let before = fs::read_link(&path).unwrap();
        std::thread::scope(|scope| {
            let (began, has_begun) = std::sync::mpsc::channel();
            let (end, is_to_end) = std::sync::mpsc::channel();
            scope.spawn(move || {
                take_own();
                assert!(are_own());
                // All numbers are free again.
                let file = File::open("/dev/null").unwrap();
                assert_eq!(file.as_raw_fd(), 0);
                assert_eq!(fs::read_dir("/proc/thread-self/fd").unwrap().count(), 2);
                began.send(()).unwrap();
                is_to_end.recv().unwrap();
            });
            has_begun.recv().unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), before);
            // The thread does not keep the pipe.
            drop(writer);
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
            end.send(()).unwrap();
        });
        assert!(!are_own());
    }

    #[test]
    fn without_ranges_each_is_closed() {
        let (_reader, _writer) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: the table is this thread's own once unshare has returned 0.
                unsafe {
                    assert_eq!(libc::unshare(libc::CLONE_FILES), 0);
                    close_each();
                }
                assert_eq!(File::open("/dev/null").unwrap().as_raw_fd(), 0);
            });
        });
    }

    #[test]
    fn stderr_is_found() {
        let here = stderr_identity();
        assert!(here.is_some());
        apart(|| {
            assert_eq!(stderr_identity(), here);
            for borrow in [borrow_stderr, duplicate_stderr] {
                let Some(borrowed) = borrow() else { continue };
                let found = fs::metadata(format!("/proc/thread-self/fd/{}", borrowed.as_raw_fd()));
                let found = found.unwrap();
                use std::os::unix::fs::MetadataExt;
                assert_eq!(Some((found.dev(), found.ino())), here);
            }
            assert!(borrow_stderr().is_some());
        });
    }
}
