//! Which CPython this is: version, build kind, layout.

use std::ffi::CStr;

use super::{Layout, Version, debug_offsets, tables};
use crate::mem::{Address, Fault, Memory};

/// What was found.
#[derive(Clone, Debug)]
pub struct Build {
    /// Address of `_PyRuntime`.
    pub runtime: Address,
    /// Its version.
    pub version: Version,
    /// Built without a GIL.
    pub free_threaded: bool,
    /// Built with `Py_DEBUG`.
    pub debug: bool,
    /// Where its fields are.
    pub layout: Layout,
}

impl std::fmt::Display for Build {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "CPython {}", self.version)?;
        if self.free_threaded {
            out.write_str(" free-threaded")?;
        }
        if self.debug {
            out.write_str(" debug")?;
        }
        Ok(())
    }
}

/// Why a Python cannot be profiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// A CPython outside the supported range.
    #[error("CPython {0} is not supported; 3.8 to 3.15 are")]
    Version(Version),
    /// The version cannot be told.
    #[error("this Python does not tell its version; CPython 3.8 to 3.15 are supported")]
    UnknownVersion,
    /// Its table of offsets cannot be right.
    #[error("this CPython {0} describes its own structures wrongly")]
    Offsets(Version),
    /// The runtime cannot be read at all.
    #[error(
        "this process's memory cannot be read (process_vm_readv is forbidden and SIGSEGV is taken)"
    )]
    Unreadable,
}

impl From<Fault> for Unsupported {
    fn from(_: Fault) -> Self {
        Self::Unreadable
    }
}

/// What the symbols say before any memory is read.
#[derive(Clone, Debug)]
pub struct Symbols {
    /// Address of `_PyRuntime`.
    pub runtime: Address,
    /// What `Py_GetVersion` tells, where it can be called.
    pub version: Option<Version>,
    /// Whether symbols that only a debug build has are there.
    pub debug: bool,
}

/// Why this Python cannot be profiled, as far as its symbols tell.
pub fn refusal(symbols: &Symbols) -> Option<Unsupported> {
    let version = symbols.version?;
    let is_supported = version.major == 3 && (8..=15).contains(&version.minor);
    (!is_supported).then_some(Unsupported::Version(version))
}

/// Tells the build from its symbols and the start of its runtime.
pub fn build(memory: &impl Memory, symbols: &Symbols) -> Result<Build, Unsupported> {
    let runtime = symbols.runtime;
    if let Some(head) = debug_offsets::head(memory, runtime)? {
        let version = version_from_hex(head.version_hex);
        let free_threaded = head.free_threaded;
        let layout = debug_offsets::layout(memory, runtime, version, free_threaded)?;
        return Ok(Build { runtime, version, free_threaded, debug: symbols.debug, layout });
    }
    let version = symbols.version.ok_or(Unsupported::UnknownVersion)?;
    let layout = match (version.major, version.minor) {
        (3, 8) => tables::V3_8,
        (3, 9) => tables::V3_9,
        (3, 10) => tables::V3_10,
        (3, 11) => tables::V3_11,
        (3, 12) => tables::V3_12,
        _ => return Err(Unsupported::Version(version)),
    };
    Ok(Build { runtime, version, free_threaded: false, debug: symbols.debug, layout })
}

/// The version in the text of `Py_GetVersion`, such as `3.8.18 (default, …`.
pub fn version_from_text(text: &str) -> Option<Version> {
    let number = text.split([' ', '+']).next()?;
    let mut parts = number.split('.').map(|part| {
        let digits = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse().ok()
    });
    Some(Version {
        major: parts.next()??,
        minor: parts.next()??,
        micro: parts.next().flatten().unwrap_or(0),
    })
}

/// Names to look for; `_PyRuntime` exists from 3.7 on.
pub const RUNTIME_SYMBOL: &CStr = c"_PyRuntime";
/// Only in builds with `Py_REF_DEBUG`, which `Py_DEBUG` implies.
pub const DEBUG_SYMBOL: &CStr = c"_Py_NegativeRefcount";
/// `const char *Py_GetVersion(void)`, callable without the GIL and before initialisation.
pub const VERSION_SYMBOL: &CStr = c"Py_GetVersion";

fn version_from_hex(hex: u64) -> Version {
    Version { major: (hex >> 24) as u8, minor: (hex >> 16) as u8, micro: (hex >> 8) as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_text() {
        let version = |text| version_from_text(text).map(|v| (v.major, v.minor, v.micro));
        assert_eq!(version("3.8.18 (default, Jan  1 2024)"), Some((3, 8, 18)));
        assert_eq!(version("3.12.0rc2+ (main)"), Some((3, 12, 0)));
        assert_eq!(version("3.15.0a1"), Some((3, 15, 0)));
        assert_eq!(version("2.7.18 |x"), Some((2, 7, 18)));
        assert_eq!(version("nonsense"), None);
    }
}
