//! The status codes of the C interface, and what each is in words.

use std::ffi::CStr;

use crate::config::ConfigError;
use crate::session::SessionError;
use crate::trampoline::Refusal;

/// What became of a call. The numbers never change; later versions may add some.
#[allow(clippy::enum_variant_names)] // C has no namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum PysampStatus {
    /// It did what it should.
    PysampOk = 0,
    /// The options cannot be understood, or switch profiling off.
    PysampInvalidOptions = 1,
    /// A profile is being taken already.
    PysampAlreadyActive = 2,
    /// No profile is being taken, or no trampolines are active.
    PysampNotActive = 3,
    /// There is no CPython in this process, or it has run no code yet that could be in a profile.
    PysampNoPython = 4,
    /// The Python in this process is not one that can be profiled.
    PysampUnsupported = 5,
    /// The profile, or the file for `perf`, cannot be written where it should go.
    PysampOutputFailed = 6,
    /// The sampling thread cannot be started.
    PysampThreadFailed = 7,
    /// The sampling thread did not answer within a minute or is not there any more, or Python's main thread
    /// has too much to do.
    PysampTimeout = 8,
    /// A fault of pysamp's own.
    PysampInternal = 9,
    /// Python's frames are evaluated by another tool already, such as CPython's own trampolines.
    PysampHookTaken = 10,
}

use PysampStatus::*;

const ALL: [PysampStatus; 11] = [
    PysampOk,
    PysampInvalidOptions,
    PysampAlreadyActive,
    PysampNotActive,
    PysampNoPython,
    PysampUnsupported,
    PysampOutputFailed,
    PysampThreadFailed,
    PysampTimeout,
    PysampInternal,
    PysampHookTaken,
];

impl PysampStatus {
    /// The status in words.
    pub(super) fn text(self) -> &'static CStr {
        match self {
            PysampOk => c"success",
            PysampInvalidOptions => c"invalid options",
            PysampAlreadyActive => c"a profile is being taken already",
            PysampNotActive => c"not active",
            PysampNoPython => c"no Python code has run in this process",
            PysampUnsupported => c"this Python cannot be profiled",
            PysampOutputFailed => c"the output cannot be written",
            PysampThreadFailed => c"the sampling thread cannot be started",
            PysampTimeout => c"no answer",
            PysampInternal => c"internal error",
            PysampHookTaken => c"Python's frames are evaluated by another tool",
        }
    }

    /// As [`PysampStatus::text`], for any number that C code may come with.
    pub(super) fn text_of(number: i32) -> &'static CStr {
        let known = ALL.into_iter().find(|status| *status as i32 == number);
        known.map_or(c"unknown status", Self::text)
    }
}

/// Why a call did not do what it should.
pub(super) struct Failure {
    pub(super) status: PysampStatus,
    /// The whole story in one sentence.
    pub(super) sentence: String,
}

impl Failure {
    pub(super) fn new(status: PysampStatus, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(PysampInvalidOptions, error.to_string())
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let status = match &error {
            SessionError::AlreadyActive => PysampAlreadyActive,
            SessionError::NotActive => PysampNotActive,
            SessionError::NoPython => PysampNoPython,
            SessionError::Unsupported(_) => PysampUnsupported,
            SessionError::Output(_) => PysampOutputFailed,
            SessionError::Thread(_) => PysampThreadFailed,
            SessionError::Timeout | SessionError::Killed => PysampTimeout,
            SessionError::Internal => PysampInternal,
        };
        Self::new(status, error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::NoPython => PysampNoPython,
            Refusal::NotActive => PysampNotActive,
            Refusal::OtherHook => PysampHookTaken,
            Refusal::File(_) => PysampOutputFailed,
            Refusal::Busy => PysampTimeout,
            Refusal::Missing(_)
            | Refusal::Unsupported(_)
            | Refusal::Unreadable
            | Refusal::Processor
            | Refusal::Memory => PysampUnsupported,
        };
        Self::new(status, refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_gaps_and_texts_differ() {
        for (number, status) in ALL.into_iter().enumerate() {
            assert_eq!(status as usize, number);
            assert_eq!(PysampStatus::text_of(number as i32), status.text());
            assert!(ALL.iter().all(|other| *other == status || other.text() != status.text()));
        }
        for unknown in [-1, ALL.len() as i32, i32::MAX, i32::MIN] {
            assert_eq!(PysampStatus::text_of(unknown), c"unknown status");
        }
    }
}
