//! Blocks of the timeline: in memory, or left where they are in the file of a recording, however long that is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file that blocks are read from whenever they are needed.
#[derive(Debug)]
pub struct BlockFile {
    file: File,
    has_failed: AtomicBool,
}

impl BlockFile {
    /// Of a file that is not cut as long as a profile refers to it.
    pub fn new(file: File) -> Self {
        Self { file, has_failed: AtomicBool::new(false) }
    }

    fn read(&self, at: u64, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        into.resize(length, 0);
        self.file.read_exact_at(into, at)
    }
}

/// Entries, one after the other.
#[derive(Clone, Debug)]
pub enum Block {
    /// In memory.
    Held(Arc<[u8]>),
    /// In a file.
    Filed {
        /// The file.
        file: Arc<BlockFile>,
        /// Where the block begins.
        at: u64,
        /// Its bytes.
        length: usize,
    },
}

impl Block {
    /// Puts what it holds in the place of what was there; nothing if it cannot be read any more.
    pub(super) fn read(&self, into: &mut Vec<u8>) {
        into.clear();
        match self {
            Self::Held(bytes) => into.extend_from_slice(bytes),
            Self::Filed { file, at, length } => {
                if file.read(*at, *length, into).is_err() {
                    file.has_failed.store(true, Ordering::Relaxed);
                    into.clear();
                }
            }
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Held(bytes) => bytes.is_empty(),
            Self::Filed { length, .. } => *length == 0,
        }
    }

    /// Whether it, or another block of its file, could not be read.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, Self::Filed { file, .. } if file.has_failed.load(Ordering::Relaxed))
    }
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        let [mut one, mut two] = [Vec::new(), Vec::new()];
        self.read(&mut one);
        other.read(&mut two);
        one == two
    }
}

impl Eq for Block {}

impl<B: Into<Arc<[u8]>>> From<B> for Block {
    fn from(bytes: B) -> Self {
        Self::Held(bytes.into())
    }
}
