//! The map in which `perf` and others look up what has no file: `/tmp/perf-<pid>.map`, a line for each
//! function.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::path::PathBuf;

use super::file::Additions;
use super::python::MapEntry;
use super::stub::CODE;
use super::{Entry, name};

/// The map of this process. From 3.12 on CPython writes such maps, too; entries go through its own
/// function then, under its lock.
pub(super) struct PerfMap {
    file: Additions,
    cpython: Option<Cpython>,
}

/// CPython's writer keeps a descriptor open.
struct Cpython {
    write: MapEntry,
    /// Its descriptor, once it has one.
    descriptor: Option<RawFd>,
}

impl PerfMap {
    pub(super) fn create(pid: u32, write: Option<MapEntry>) -> io::Result<Self> {
        let path = PathBuf::from(format!("/tmp/perf-{pid}.map"));
        let file = Additions::go_on(&path)?;
        Ok(Self { file, cpython: write.map(|write| Cpython { write, descriptor: None }) })
    }

    /// Adds entries, in one piece, by whatever thread.
    pub(super) fn add_all(&self, entries: &[Entry<'_>]) -> io::Result<()> {
        let lines: String = entries.iter().map(line).collect();
        self.file.add(lines.as_bytes())
    }

    /// Adds an entry, in a thread of the application's.
    pub(super) fn add(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let name = CString::new(name(entry.code));
        if let (Some(cpython), Ok(name)) = (&mut self.cpython, name)
            && cpython.writes_to(&self.file)
        {
            let is_first = cpython.descriptor.is_none();
            let written =
                (cpython.write)(entry.address as *const _, CODE.len() as u32, name.as_ptr());
            if written == 0 {
                if is_first {
                    cpython.descriptor = descriptors().find(|it| leads_to(*it, &self.file));
                }
                return Ok(());
            }
        }
        self.cpython = None;
        self.file.add(line(entry).as_bytes())
    }
}

impl Cpython {
    /// Whether its descriptor still leads to the map: an application that has closed it may have got
    /// its number for a file of its own.
    fn writes_to(&self, file: &Additions) -> bool {
        match self.descriptor {
            Some(descriptor) => leads_to(descriptor, file),
            None => !descriptors().any(|it| is_map(it) && !leads_to(it, file)),
        }
    }
}

fn descriptors() -> impl Iterator<Item = RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn leads_to(descriptor: RawFd, file: &Additions) -> bool {
    // SAFETY: it is only asked about and not closed; the kernel tells of one that is none.
    let there = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) });
    there.metadata().is_ok_and(|there| file.is(&there))
}

/// A map that is open in a process that has not written to it is its parent's.
fn is_map(descriptor: RawFd) -> bool {
    let is_name = |path: PathBuf| path.to_string_lossy().starts_with("/tmp/perf-");
    fs::read_link(format!("/proc/self/fd/{descriptor}")).is_ok_and(is_name)
}

fn line(entry: &Entry<'_>) -> String {
    format!("{:x} {:x} {}\n", entry.address, CODE.len(), name(entry.code))
}
