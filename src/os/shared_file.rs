//! A file that is written by storing to memory: what was stored is in the file however the process
//! ends, and where faults are caught no store is a system call.
//!
//! No descriptor is kept: the application may close any it did not open itself, and open its own
//! file in that place.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use super::claim::FAULTS;
use super::{descriptors, thread};

/// Where the one file that is mapped lies, for the handler of SIGBUS; no length where there is none.
static START: AtomicUsize = AtomicUsize::new(0);
static LENGTH: AtomicUsize = AtomicUsize::new(0);
/// Whether a part of it had to be replaced by memory of no file.
static LOST: AtomicBool = AtomicBool::new(false);
/// Whether a store beyond the file's end would be seen to by [`rescue`].
static CAUGHT: AtomicBool = AtomicBool::new(false);

/// A new file, mapped. There is one at a time in a process.
#[derive(Debug)]
pub struct SharedFile {
    path: PathBuf,
    /// Device and inode: what is at the path may be another file by now.
    identity: (u64, u64),
    base: NonNull<u8>,
    length: usize,
}

impl SharedFile {
    /// Makes a file of zeros at a path where nothing is, and maps it.
    pub fn create(path: &Path, length: usize) -> io::Result<Self> {
        descriptors::apart(|| {
            let mut options = OpenOptions::new();
            let made = open(options.create_new(true).mode(0o600), path)?;
            own(made).and_then(|file| Self::of(&file, path, length)).inspect_err(|_| {
                let _ = fs::remove_file(path);
            })
        })
    }

    fn of(file: &File, path: &Path, length: usize) -> io::Result<Self> {
        let identity = identity(&file.metadata()?);
        reserve(file, 0, length)?;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED;
            libc::mmap(std::ptr::null_mut(), length, protection, flags, file.as_raw_fd(), 0)
        };
        let base = mapped(base)?;
        // A forked child must not write to its parent's file: it does not get the mapping.
        // SAFETY: the range was mapped just now and is this value's own.
        unsafe { libc::madvise(base.as_ptr().cast(), length, libc::MADV_DONTFORK) };
        LOST.store(false, Ordering::SeqCst);
        watch(base, length);
        Ok(Self { path: path.to_owned(), identity, base, length })
    }

    /// Makes the file longer by zeros. Where that cannot be, it stays as it is.
    pub fn grow(&mut self, length: usize) -> io::Result<()> {
        descriptors::apart(|| self.grow_here(length))
    }

    fn grow_here(&mut self, length: usize) -> io::Result<()> {
        let file = open(&mut OpenOptions::new(), &self.path).and_then(own)?;
        if identity(&file.metadata()?) != self.identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        reserve(&file, self.length, length)?;
        // SAFETY: the old range is this value's own mapping, to which no reference exists.
        let base = unsafe {
            let old = self.base.as_ptr().cast();
            libc::mremap(old, self.length, length, libc::MREMAP_MAYMOVE)
        };
        self.base = mapped(base)?;
        self.length = length;
        watch(self.base, length);
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is; 0 once it is closed.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it is closed.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether what is stored does not reach the file any more: somebody has cut it.
    pub fn is_lost() -> bool {
        LOST.load(Ordering::Relaxed)
    }

    /// Stores bytes, before whatever is stored after them. Where they are one or more whole numbers of
    /// 32 or 64 bits at multiples of their size, each is stored at once.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        if !self.holds(at, bytes.len()) {
            return;
        }
        // SAFETY: the range lies inside the mapping, to which no reference exists.
        unsafe {
            let to = self.base.as_ptr().add(at);
            let is_caught = CAUGHT.load(Ordering::Relaxed);
            if is_caught && let Some(_catching) = FAULTS.enter() {
                store(to, bytes);
            } else if !store_by_system_call(to, bytes) {
                LOST.store(true, Ordering::Relaxed);
            }
        }
    }

    /// A range will not be written to any more: its memory is given back, what is in it is in the file. What
    /// lies in the same pages comes back when it is used.
    pub fn release(&mut self, at: usize, length: usize) {
        /// A multiple of any page's size.
        const PAGE: usize = 64 << 10;
        let (start, end) =
            (at / PAGE * PAGE, (at + length).next_multiple_of(PAGE).min(self.length));
        if start < end && self.holds(start, end - start) {
            // SAFETY: the range lies inside the mapping; a page of a shared mapping that is dropped
            // comes back from the file.
            unsafe {
                let first = self.base.as_ptr().add(start);
                libc::madvise(first.cast(), end - start, libc::MADV_DONTNEED);
            }
        }
    }

    /// Reads ranges of equal length back from the file.
    pub fn read(&self, places: &[usize], length: usize) -> io::Result<Vec<Arc<[u8]>>> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let (path, wanted) = (&self.path, self.identity);
        descriptors::apart(|| {
            let file = File::open(path)?;
            if identity(&file.metadata()?) != wanted {
                return Err(io::ErrorKind::NotFound.into());
            }
            let read = |&at: &usize| {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, at as u64)?;
                Ok(bytes.into())
            };
            places.iter().map(read).collect()
        })
    }

    fn holds(&self, at: usize, length: usize) -> bool {
        self.length.checked_sub(length).is_some_and(|most| at <= most)
    }

    /// Leaves the file as it is; nothing is stored from now on.
    pub fn close(&mut self) {
        if self.length > 0 {
            watch(self.base, 0);
            // SAFETY: the range is this value's own, and its length of 0 keeps it from being used.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
            self.length = 0;
        }
    }

    /// Takes the file away, unless another one is in its place.
    pub fn remove(mut self) {
        self.close();
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

// SAFETY: the mapping belongs to this value, whichever thread has it.
unsafe impl Send for SharedFile {}

impl Drop for SharedFile {
    fn drop(&mut self) {
        self.close();
    }
}

/// # Safety
///
/// The range can be written to, by this thread alone.
unsafe fn store(to: *mut u8, bytes: &[u8]) {
    let whole = |size| (to as usize).is_multiple_of(size) && bytes.len().is_multiple_of(size);
    // SAFETY: in the range that the caller vouches for, and aligned as just seen.
    unsafe {
        if whole(8) {
            for (index, number) in bytes.as_chunks().0.iter().enumerate() {
                let word = AtomicU64::from_ptr(to.cast::<u64>().add(index));
                word.store(u64::from_ne_bytes(*number), Ordering::Release);
            }
        } else if whole(4) {
            for (index, number) in bytes.as_chunks().0.iter().enumerate() {
                let word = AtomicU32::from_ptr(to.cast::<u32>().add(index));
                word.store(u32::from_ne_bytes(*number), Ordering::Release);
            }
        } else {
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }
    compiler_fence(Ordering::SeqCst);
}

/// As [`store`], but what would be a fault is an error.
///
/// # Safety
///
/// As for [`store`].
unsafe fn store_by_system_call(to: *mut u8, bytes: &[u8]) -> bool {
    let from = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let to = libc::iovec { iov_base: to.cast(), iov_len: bytes.len() };
    let this = thread::current_tid() as libc::pid_t;
    // SAFETY: reads the bytes and writes the range, which the caller vouches for.
    let written = unsafe { libc::process_vm_writev(this, &from, 1, &to, 1, 0) };
    written == bytes.len() as isize
}

/// Says whether a handler is there that calls [`rescue`]; until then, what may be a fault is left to
/// the kernel.
pub fn set_caught(caught: bool) {
    CAUGHT.store(caught, Ordering::Relaxed);
}

/// Forgets a mapping that is the parent's: this process does not have it.
pub fn forget_after_fork() {
    LENGTH.store(0, Ordering::SeqCst);
    set_caught(false);
}

/// Puts memory of no file where the file ends too early, if the address lies in the mapping: whoever
/// stores there goes on. Async-signal-safe.
pub fn rescue(address: usize) -> bool {
    /// The only size on x86-64, which is where faults are caught.
    const PAGE: usize = 4096;
    let (start, length) = (START.load(Ordering::SeqCst), LENGTH.load(Ordering::SeqCst));
    if address.wrapping_sub(start) >= length {
        return false;
    }
    LOST.store(true, Ordering::SeqCst);
    let page = (address & !(PAGE - 1)) as *mut libc::c_void;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the page belongs to a mapping that is ours, and holds nothing any more.
    unsafe { libc::mmap(page, PAGE, protection, flags, -1, 0) == page }
}

fn watch(base: NonNull<u8>, length: usize) {
    LENGTH.store(0, Ordering::SeqCst);
    START.store(base.as_ptr() as usize, Ordering::SeqCst);
    LENGTH.store(length, Ordering::SeqCst);
}

fn mapped(base: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    let failed = base == libc::MAP_FAILED;
    NonNull::new(base.cast()).filter(|_| !failed).ok_or_else(io::Error::last_os_error)
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    options.read(true).write(true).custom_flags(flags).open(path)
}

/// Where a standard descriptor is closed, its place is the application's.
fn own(file: File) -> io::Result<File> {
    if descriptors::are_own() || file.as_raw_fd() > libc::STDERR_FILENO {
        Ok(file)
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Takes the room on the disk, so that there is some for every store.
fn reserve(file: &File, from: usize, to: usize) -> io::Result<()> {
    // What goes beyond the limit is answered by SIGXFSZ.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) == 0 };
    if !known || limit.rlim_cur < to as libc::rlim_t {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let (offset, length) = (from as libc::off_t, to.saturating_sub(from) as libc::off_t);
    // SAFETY: the descriptor is open, and the call changes nothing in memory.
    let status = unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, length) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::{Mutex, PoisonError};

    /// What is mapped is told to the handler in statics.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn what_is_stored_is_in_the_file() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        for caught in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("file");
            let mut file = SharedFile::create(&path, 4096).unwrap();
            set_caught(caught);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
            file.write(10, b"abc");
            file.grow(12288).unwrap();
            file.write(8192, b"sixteen letters!");
            file.write(12284, b"four");
            // Beyond the end there is nothing.
            file.write(12288, b"x");
            file.write(12287, b"xy");
            let bytes = fs::read(&path).unwrap();
            assert_eq!((bytes.len(), &bytes[10..13]), (12288, &b"abc"[..]));
            assert_eq!(
                (&bytes[8192..8208], &bytes[12284..]),
                (&b"sixteen letters!"[..], &b"four"[..])
            );
            file.close();
            file.write(10, b"xyz");
            assert_eq!(&fs::read(&path).unwrap()[10..13], b"abc");
            assert!(!SharedFile::is_lost());
            file.remove();
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_is_released_takes_no_memory() {
        const PIECE: usize = 32 << 10;
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut file = SharedFile::create(&path, 32 * PIECE).unwrap();
        set_caught(true);
        let resident_kb = || -> u64 {
            let maps = fs::read_to_string("/proc/self/smaps").unwrap();
            let own = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
            let size = own.filter_map(|line| line.strip_prefix("Rss:")).next().unwrap();
            size.trim().trim_end_matches(" kB").parse().unwrap()
        };
        for piece in 0..32 {
            file.write(piece * PIECE, &[piece as u8 + 1; PIECE]);
        }
        assert!(resident_kb() > 512);
        (0..32).for_each(|piece| file.release(piece * PIECE, PIECE));
        assert_eq!(resident_kb(), 0);
        file.write(5, b"x");
        let bytes = fs::read(&path).unwrap();
        assert_eq!((bytes[4], bytes[5], bytes[32 * PIECE - 1]), (1, b'x', 32));
    }

    #[test]
    fn a_file_that_was_cut_is_lost() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let mut file = SharedFile::create(&directory.path().join("file"), 8192).unwrap();
        set_caught(false);
        OpenOptions::new().write(true).open(file.path()).unwrap().set_len(4096).unwrap();
        file.write(0, b"there");
        assert!(!SharedFile::is_lost());
        file.write(4096, b"gone");
        assert!(SharedFile::is_lost());
    }

    #[test]
    fn what_is_there_is_left_alone() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let target = directory.path().join("target");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let error = SharedFile::create(&path, 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&path).unwrap();
        let mut file = SharedFile::create(&path, 4096).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        assert!(file.grow(8192).is_err());
        file.remove();
        assert_eq!(fs::read(&path).unwrap(), b"another");
    }

    #[test]
    fn only_addresses_in_the_mapping_are_rescued() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let mut file = SharedFile::create(&directory.path().join("file"), 8192).unwrap();
        let base = file.base.as_ptr() as usize;
        assert!(!rescue(base - 1) && !rescue(base + 8192) && !rescue(0));
        assert!(!SharedFile::is_lost());
        OpenOptions::new().write(true).open(file.path()).unwrap().set_len(0).unwrap();
        assert!(rescue(base + 4096 + 8) && SharedFile::is_lost());
        set_caught(true);
        file.write(4096, b"nowhere");
        set_caught(false);
        file.close();
        assert!(!rescue(base));
    }
}
