//! The dump that `perf inject --jit` reads: `/tmp/jit-<pid>.dump`, with the machine code of each stub,
//! how it is unwound, and where its function is in the source.
//!
//! The format is in the kernel's `tools/perf/Documentation/jitdump-specification.txt`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::file::Additions;
use super::stub::CODE;
use super::unwinding::Unwinding;
use super::{Entry, name};
use crate::mem::PAGE;
use crate::os::{clock, thread};

const MAGIC: u32 = 0x4A69_5444;
const VERSION: u32 = 1;
const HEADER_BYTES: u32 = 40;
/// Kinds of records.
const CODE_LOAD: u32 = 0;
const CODE_DEBUG_INFO: u32 = 2;
const CODE_UNWINDING_INFO: u32 = 4;
/// `e_machine` of an ELF file.
const MACHINE: u32 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// The dump of this process.
pub(super) struct JitDump {
    file: Additions,
    pid: u32,
    unwinding: Unwinding,
    /// perf learns of the file by its being mapped.
    marker: u64,
}

impl JitDump {
    pub(super) fn create(pid: u32) -> io::Result<Self> {
        let file = Additions::replace(&PathBuf::from(format!("/tmp/jit-{pid}.dump")))?;
        let mut header = Record::default();
        for word in [MAGIC, VERSION, HEADER_BYTES, MACHINE, 0, pid] {
            header.word32(word);
        }
        header.word(clock::monotonic_ns());
        header.word(0);
        file.add(&header.0)?;
        let marker = map(&file)?;
        Ok(Self { file, pid, unwinding: Unwinding::new(), marker })
    }

    /// Adds entries, in one piece, by whatever thread.
    pub(super) fn add_all(&self, entries: &[Entry<'_>]) -> io::Result<()> {
        let mut records = Vec::new();
        entries.iter().for_each(|entry| self.push(&mut records, entry));
        self.file.add(&records)
    }

    /// What is said of some code comes before the code.
    fn push(&self, records: &mut Vec<u8>, entry: &Entry<'_>) {
        let mut lines = Record::default();
        lines.word(entry.address);
        lines.word(1);
        lines.word(entry.address);
        lines.word32(entry.code.first_line);
        lines.word32(0);
        lines.text(&entry.code.file);
        lines.finish(CODE_DEBUG_INFO, records);

        let mut unwinding = Record::default();
        unwinding.word(self.unwinding.sections.len() as u64);
        unwinding.word(self.unwinding.header_bytes as u64);
        unwinding.word(self.unwinding.mapped_bytes() as u64);
        unwinding.0.extend_from_slice(&self.unwinding.sections);
        unwinding.0.resize(unwinding.0.len().next_multiple_of(8), 0);
        unwinding.finish(CODE_UNWINDING_INFO, records);

        let mut load = Record::default();
        load.word32(self.pid);
        load.word32(thread::current_tid());
        load.word(entry.address);
        load.word(entry.address);
        load.word(CODE.len() as u64);
        load.word(entry.number.into());
        load.text(&name(entry.code));
        load.0.extend_from_slice(&CODE);
        load.finish(CODE_LOAD, records);
    }
}

impl Drop for JitDump {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by this value, and nothing refers to it.
        unsafe { libc::munmap(self.marker as *mut libc::c_void, PAGE as usize) };
    }
}

/// Maps the first page for execution, which is what perf records.
fn map(file: &Additions) -> io::Result<u64> {
    let file = file.open()?;
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let marker = unsafe {
        let none = std::ptr::null_mut();
        libc::mmap(none, PAGE as usize, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    };
    if marker == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(marker as u64) }
}

/// What a record says, without its head.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn word(&mut self, word: u64) {
        self.0.extend(word.to_ne_bytes());
    }

    fn word32(&mut self, word: u32) {
        self.0.extend(word.to_ne_bytes());
    }

    /// Text, which ends with the first NUL.
    fn text(&mut self, text: &str) {
        self.0.extend(text.bytes().take_while(|byte| *byte != 0));
        self.0.push(0);
    }

    fn finish(self, kind: u32, records: &mut Vec<u8>) {
        const HEAD_BYTES: usize = 16;
        records.extend(kind.to_ne_bytes());
        records.extend(((HEAD_BYTES + self.0.len()) as u32).to_ne_bytes());
        records.extend(clock::monotonic_ns().to_ne_bytes());
        records.extend(self.0);
    }
}
