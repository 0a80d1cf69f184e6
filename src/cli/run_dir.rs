//! The private directory through which profiled processes hand their results to the command.
//!
//! A process leaves `<pid>.table` (text to show; `<pid>-2.table` and so on if it has executed one
//! program after another), `<pid>.profile` (a recording of all that it did, to become part of one profile; with
//! numbers likewise), `<pid>.done` (the profile is elsewhere), `<pid>.written` (the paths of the
//! last of them, each with a NUL behind it),
//! `<pid>.declined` (it could not be profiled, or its profile not be written, and it has said why) or `<pid>.kept`
//! (the same, and it has said where the recording is). Until then there is `<pid>.pysamp`, the recording
//! or a link to it, or with a number as in `<pid>-2.pysamp`. Other names mean nothing.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Failure, reason};
use crate::profile::Profile;
use crate::profile::recording::{self, Damage, Unreadable};

/// The directory; it goes away with this value.
pub(super) struct RunDir(TempDir);

/// What the processes left.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Process ids and their tables, in the order to show them.
    pub(super) tables: Vec<(u32, Vec<u8>)>,
    /// Of processes that left what is to become part of one profile.
    pub(super) collected: Vec<Recording>,
    /// The files that the program's own process wrote last.
    pub(super) written: Vec<PathBuf>,
    /// Whether any process was profiled.
    pub(super) profiled: bool,
    /// Whether any process could not be profiled, or its profile not be written.
    pub(super) declined: bool,
    /// Of processes that ended without writing their profiles.
    pub(super) recordings: Vec<Recording>,
}

/// What a process recorded.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) pid: u32,
    pub(super) path: PathBuf,
    pub(super) read: Result<(Profile, Option<Damage>), Unreadable>,
}

impl RunDir {
    pub(super) fn new() -> Result<Self, Failure> {
        tempfile::Builder::new()
            .prefix("pysamp-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map(Self)
            .map_err(|error| {
                let place = std::env::temp_dir();
                let place = place.display();
                Failure::broken(format!("cannot make a directory in '{place}': {}", reason(&error)))
            })
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The value of `LD_PRELOAD` that loads the library before what is preloaded already.
    ///
    /// The loader splits the value at spaces and colons and expands dollar signs, without any
    /// escape, so a library whose path has one is reached through a link.
    pub(super) fn preload(
        &self,
        library: &Path,
        existing: Option<OsString>,
    ) -> Result<OsString, Failure> {
        let cannot = |why: &str| {
            Failure::broken(format!("'{}' cannot be preloaded: {why}", library.display()))
        };
        let mut value = if can_be_preloaded(library) {
            library.as_os_str().to_owned()
        } else {
            let link = self.path().join("libpysamp.so");
            if !can_be_preloaded(&link) {
                return Err(cannot("neither its path nor TMPDIR is free of ' ', ':' and '$'"));
            }
            symlink(library, &link).map_err(|error| cannot(&reason(&error)))?;
            link.into_os_string()
        };
        if let Some(existing) = existing.filter(|existing| !existing.is_empty()) {
            value.push(":");
            value.push(existing);
        }
        Ok(value)
    }

    /// Gives processes that are about to end the time to leave what they have. Others run on.
    pub(super) fn settle(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        const PAUSE: Duration = Duration::from_millis(5);
        let until = Instant::now() + PATIENCE;
        let is_recording = |name: &OsStr| {
            pid_and_kind(name).is_some_and(|(pid, kind)| kind == "pysamp" && is_running(pid))
        };
        let names = || std::fs::read_dir(self.path()).into_iter().flatten().flatten();
        while names().any(|entry| is_recording(&entry.file_name())) && Instant::now() < until {
            std::thread::sleep(PAUSE);
        }
    }

    /// Reads what was left, the program's own process first, and removes the directory. What processes
    /// record that still run is left to them, unless all is to become one profile.
    pub(super) fn finish(self, program: u32, takes_all: bool) -> Outcome {
        let mut outcome = Outcome::default();
        let mut recordings = Vec::new();
        let mut collected = Vec::new();
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some((pid, kind)) = pid_and_kind(&name) else { continue };
            match kind {
                "table" => {
                    // Gone or unreadable is as if it had never been written.
                    if let Ok(table) = std::fs::read(entry.path()) {
                        outcome.tables.push((pid, table));
                        outcome.profiled = true;
                    }
                }
                "profile" => collected.push((pid, entry.path())),
                "done" => outcome.profiled = true,
                "written" if pid == program => {
                    let paths = std::fs::read(entry.path()).unwrap_or_default();
                    let paths = paths.split(|byte| *byte == 0).filter(|path| !path.is_empty());
                    outcome.written = paths.map(|path| OsStr::from_bytes(path).into()).collect();
                }
                "declined" => outcome.declined = true,
                "kept" => {
                    kept.push(pid);
                    outcome.declined = true;
                }
                // A link leads nowhere once its recording is not needed any more.
                "pysamp" if takes_all || !is_running(pid) => {
                    recordings.extend(entry.path().canonicalize().map(|path| (pid, path)));
                }
                _ => {}
            }
        }
        recordings.retain(|(pid, _)| !kept.contains(pid));
        let read = |mut recordings: Vec<(u32, PathBuf)>| -> Vec<Recording> {
            recordings.sort_unstable_by_key(|(pid, _)| (*pid != program, *pid));
            let recordings = recordings.into_iter();
            recordings
                .map(|(pid, path)| Recording { pid, read: recording::read_file(&path), path })
                .collect()
        };
        outcome.recordings = read(recordings);
        outcome.collected = read(collected);
        outcome.tables.sort_unstable_by_key(|(pid, _)| (*pid != program, *pid));
        outcome
    }
}

fn can_be_preloaded(path: &Path) -> bool {
    !path.as_os_str().as_bytes().iter().any(|byte| b" :$\t\n".contains(byte))
}

/// What the name of a file in the directory says.
pub(super) fn pid_and_kind(name: &OsStr) -> Option<(u32, &str)> {
    let (process, kind) = name.to_str()?.split_once('.')?;
    let pid = process.split_once('-').map_or(process, |(pid, _)| pid);
    Some((pid.parse().ok()?, kind))
}

/// Whether a process has not ended, though nobody may have waited for it yet.
fn is_running(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_dir() -> RunDir {
        RunDir::new().ok().unwrap()
    }

    #[test]
    fn private_and_removed() {
        let run_dir = run_dir();
        let path = run_dir.path().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        let outcome = run_dir.finish(1, false);
        assert!(outcome.tables.is_empty() && !outcome.profiled && !outcome.declined);
        assert!(!path.exists());
    }

    #[test]
    fn the_program_comes_first() {
        let run_dir = run_dir();
        for name in ["30.table", "7.table", "200.table", "x.table", "8.table.tmp", "8"] {
            std::fs::write(run_dir.path().join(name), name).unwrap();
        }
        let outcome = run_dir.finish(30, false);
        let tables: Vec<_> = outcome.tables.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(tables, [30, 7, 200]);
        assert_eq!(outcome.tables[0].1, b"30.table");
        assert!(outcome.profiled && !outcome.declined);
    }

    #[test]
    fn markers() {
        let with = |name: &str| {
            let run_dir = run_dir();
            std::fs::write(run_dir.path().join(name), "").unwrap();
            let outcome = run_dir.finish(1, false);
            (outcome.profiled, outcome.declined)
        };
        assert_eq!(with("5.done"), (true, false));
        assert_eq!(with("5.declined"), (false, true));
        assert_eq!(with("5.donee"), (false, false));
        let run_dir = run_dir();
        std::fs::write(run_dir.path().join("5.written"), b"/a b\0/c\xff\0").unwrap();
        std::fs::write(run_dir.path().join("6.written"), b"/d\0").unwrap();
        let written = run_dir.finish(5, false).written;
        assert_eq!(written, [OsStr::from_bytes(b"/a b"), OsStr::from_bytes(b"/c\xff")]);
    }

    #[test]
    fn recordings_of_processes_that_have_ended() {
        const NOBODY: u32 = 0x3FFF_FFFF;
        let run_dir = run_dir();
        let own = std::process::id();
        let names =
            [format!("{NOBODY}-2.pysamp"), format!("{own}.pysamp"), "1073741822.pysamp".into()];
        for name in names.iter().map(String::as_str).chain(["1073741822.kept", "x.pysamp"]) {
            std::fs::write(run_dir.path().join(name), "").unwrap();
        }
        // Its recording was not needed any more.
        symlink("/nowhere", run_dir.path().join("1073741821.pysamp")).unwrap();
        let outcome = run_dir.finish(1, false);
        let [only] = &outcome.recordings[..] else { panic!("{outcome:?}") };
        assert_eq!((only.pid, outcome.declined, outcome.profiled), (NOBODY, true, false));
        assert!(matches!(only.read, Err(Unreadable::Empty)));
    }

    #[test]
    fn preload_values() {
        let run_dir = run_dir();
        let value = |library: &str, existing: Option<&str>| {
            run_dir.preload(Path::new(library), existing.map(OsString::from)).ok().unwrap()
        };
        assert_eq!(value("/l.so", None), "/l.so");
        assert_eq!(value("/l.so", Some("")), "/l.so");
        assert_eq!(value("/l.so", Some("/a.so /b.so")), "/l.so:/a.so /b.so");
        let linked = value("/with space/$LIB/l.so", None);
        assert_eq!(std::fs::read_link(linked).unwrap(), Path::new("/with space/$LIB/l.so"));
    }
}
