//! What each backend has: stubs of its own, the table that leads to them, and the file that names them.

use std::io;

use super::jitdump::JitDump;
use super::perf_map::PerfMap;
use super::python::Python;
use super::stub::Stubs;
use super::table::{Keys, Table};
use super::{Backend, Entry};

/// The stub of all that have none of their own, as they cannot be read or are too many.
pub(super) const NAMELESS: u32 = 0;

/// The stubs of a backend, those of the code objects that were met, and its file, once that is there.
pub(super) struct Side {
    pub(super) stubs: Stubs,
    pub(super) table: Table,
    pub(super) writer: Option<Writer>,
}

impl Side {
    pub(super) fn new(backend: Backend, keys: Keys) -> Option<Self> {
        let mut stubs = Stubs::reserve(backend)?;
        let table = Table::new(keys, stubs.address(0));
        stubs.make(NAMELESS + 1).then_some(Self { stubs, table, writer: None })
    }
}

/// A file, and how many stubs it knows: those with the lowest numbers.
pub(super) struct Writer {
    pub(super) sink: Sink,
    pub(super) told: u32,
}

pub(super) enum Sink {
    Map(PerfMap),
    JitDump(JitDump),
}

impl Sink {
    pub(super) fn create(backend: Backend, pid: u32, python: &Python) -> io::Result<Self> {
        Ok(match backend {
            Backend::Map => Self::Map(PerfMap::create(pid, python.write_map_entry)?),
            Backend::JitDump => Self::JitDump(JitDump::create(pid)?),
        })
    }

    pub(super) fn add(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        match self {
            Self::Map(map) => map.add(entry),
            Self::JitDump(dump) => dump.add_all(std::slice::from_ref(entry)),
        }
    }

    pub(super) fn add_all(&self, entries: &[Entry<'_>]) -> io::Result<()> {
        match self {
            Self::Map(map) => map.add_all(entries),
            Self::JitDump(dump) => dump.add_all(entries),
        }
    }
}
