//! Where the profile goes: a file of its own, or the directory of `pysamp run`; and the one line
//! on stderr.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::SessionError;
use crate::config::{Config, Format, OutputTemplate, TableOptions};
use crate::export;
use crate::os::process;
use crate::profile::{Meta, Profile};

/// The directory in which `pysamp run` collects what its processes leave.
const RUN_DIR_VARIABLE: &str = "PYSAMP_RUN_DIR";

/// How the name of a recording ends.
const RECORDING: &str = "pysamp";

/// How to write the profile of one session.
pub struct Output {
    format: Format,
    template: Option<OutputTemplate>,
    /// The working directory at the start.
    base: PathBuf,
    table: TableOptions,
    run_dir: Option<PathBuf>,
    /// Where the banner and complaints go.
    pub stderr: Stderr,
}

impl Output {
    /// Checks at once what can be checked: an output that cannot be written is better known before
    /// hours of sampling than after. Relative paths are taken from the directory of now.
    pub fn new(config: &Config) -> Result<Self, SessionError> {
        let base = std::env::current_dir().unwrap_or_default();
        let template = match &config.output {
            Some(template) => {
                let anchored = template.anchored(&base);
                check_writable(&anchored)?;
                Some(anchored)
            }
            None => None,
        };
        let run_dir = (!process::is_secure_execution())
            .then(|| std::env::var_os(RUN_DIR_VARIABLE))
            .flatten()
            .map(PathBuf::from)
            .filter(|path| path.is_dir());
        let stderr = Stderr::now();
        let (format, table) = (config.format, config.table);
        Ok(Self { format, template, base, table, run_dir, stderr })
    }

    /// For a command that has checked its output: names that it did not choose are in `base`.
    pub fn of_command(config: &Config, base: PathBuf) -> Self {
        let template = config.output.as_ref().map(|template| template.anchored(&base));
        let (format, table, stderr) = (config.format, config.table, Stderr::now());
        Self { format, template, base, table, run_dir: None, stderr }
    }

    /// Writes the finished profile and says so, or why not, in one line. Without the profile the
    /// recording is all that is left of it.
    pub fn deliver(&self, profile: &Profile, recording: Option<&Path>) -> Result<(), String> {
        let delivered = self.write_finished(profile).map_err(|line| match recording {
            Some(path) if self.shown_by_command().is_none() => {
                self.leave_mark(profile.meta.pid, "kept");
                format!("{line}; what was recorded is kept in {}", printable(path))
            }
            _ => line,
        });
        let (Ok(line) | Err(line)) = &delivered;
        self.stderr.line(line);
        delivered.map(drop)
    }

    /// Makes the file to record to while sampling goes on, beside the output; nothing where there
    /// can be none.
    pub fn begin_recording(&self, meta: &Meta, create: impl FnMut(&Path) -> io::Result<()>) {
        let name = format!("pysamp_{}.{RECORDING}", meta.pid);
        let (place, found_by_command) = match (self.shown_by_command(), &self.template) {
            (Some(directory), _) => (directory.join(format!("{}.{RECORDING}", meta.pid)), true),
            (None, Some(template)) => {
                let output = template.expand(meta.pid, meta.start_unix_ns, &meta.program);
                let is_device = fs::metadata(&output).is_ok_and(|found| !found.is_file());
                let beside = output.with_extension(RECORDING);
                (if is_device || beside == output { self.base.join(name) } else { beside }, false)
            }
            (None, None) => (self.base.join(name), false),
        };
        let made = first_unused(&place, create);
        if let (Some(path), Some(directory), false) = (made, &self.run_dir, found_by_command) {
            let link = directory.join(format!("{}.{RECORDING}", meta.pid));
            first_unused(&link, |link| symlink(&path, link));
        }
    }

    fn write_finished(&self, profile: &Profile) -> Result<String, String> {
        let counts = counts(profile);
        if let Some(directory) = self.shown_by_command() {
            let shown = directory.join(format!("{}.table", profile.meta.pid));
            return self
                .write_file(profile, export::Format::PstatsTable, &shown)
                .map(|()| counts)
                .map_err(|error| cannot_write(&shown, &error));
        }
        let path = self.write(profile, None)?;
        self.leave_mark(profile.meta.pid, "done");
        let here = std::env::current_dir().unwrap_or_default();
        let shown = path.strip_prefix(&here).unwrap_or(&path);
        Ok(format!("wrote {}: {counts}", printable(shown)))
    }

    /// Writes a profile to `path`, or to where it should go. Returns the path, or one sentence.
    pub fn write(&self, profile: &Profile, path: Option<PathBuf>) -> Result<PathBuf, String> {
        let meta = &profile.meta;
        let (path, is_chosen) = match (path, &self.template) {
            (Some(path), _) => (path, true),
            (None, Some(template)) => {
                (template.expand(meta.pid, meta.start_unix_ns, &meta.program), true)
            }
            (None, None) => {
                let name = format!("pysamp_{}.{}", meta.pid, self.format.extension());
                (self.base.join(name), false)
            }
        };
        // A name that the user did not choose never takes the place of an older profile.
        let path = if is_chosen { path } else { unused(path) };
        self.write_file(profile, self.format, &path)
            .map_err(|error| cannot_write(&path, &error))?;
        Ok(path)
    }

    /// Says why there will be no profile.
    pub fn decline(&self, pid: u32, reason: &str) {
        self.stderr.line(&format!("{reason}; the program runs unprofiled"));
        self.leave_mark(pid, "declined");
    }

    /// The run directory, if the profile is a table that `pysamp run` will print.
    fn shown_by_command(&self) -> Option<&Path> {
        let is_table = matches!(self.format, Format::Pstats | Format::PstatsTable);
        self.run_dir.as_deref().filter(|_| is_table && self.template.is_none())
    }

    fn leave_mark(&self, pid: u32, what: &str) {
        if let Some(directory) = &self.run_dir {
            let _ = create_private(&directory.join(format!("{pid}.{what}")));
        }
    }

    /// Writes beside the final place and moves there, so that nobody ever sees half a profile and
    /// a failure leaves what was there before. A device or pipe is written to as it is.
    fn write_file(&self, profile: &Profile, format: Format, path: &Path) -> io::Result<()> {
        if fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
            let file = OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(path)?;
            return self.export(profile, format, file);
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(OsString::from(format!(".{}.part", profile.meta.pid)));
        let temporary = PathBuf::from(temporary);
        let written =
            create_private(&temporary).and_then(|file| self.export(profile, format, file));
        let moved = written.and_then(|()| fs::rename(&temporary, path));
        if moved.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        moved
    }

    fn export(&self, profile: &Profile, format: Format, file: File) -> io::Result<()> {
        let mut out = BufWriter::new(file);
        export::write(format, profile, &self.table, &mut out)?;
        out.flush()
    }
}

/// The process's stderr as it was at the start.
pub struct Stderr {
    identity: Option<(u64, u64)>,
}

impl Stderr {
    /// Remembers what descriptor 2 is.
    pub fn now() -> Self {
        Self { identity: identity_of_stderr() }
    }

    /// Writes one line that begins with `pysamp: `, unless descriptor 2 has become something else:
    /// that may be a file of the application's.
    pub fn line(&self, text: &str) {
        if self.identity.is_some() && self.identity == identity_of_stderr() {
            let line = format!("pysamp: {text}\n");
            // SAFETY: the buffer is valid for its length. Errors are of no consequence.
            unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
        }
    }
}

fn identity_of_stderr() -> Option<(u64, u64)> {
    // SAFETY: an all-zero stat is a valid value and valid for writing.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        (libc::fstat(libc::STDERR_FILENO, &mut status) == 0)
            .then_some((status.st_dev, status.st_ino))
    }
}

/// The second half of the banner, such as `4,021 samples in 4.0 s, 0.02% failed, 0% missed`.
fn counts(profile: &Profile) -> String {
    let meta = &profile.meta;
    format!(
        "{} samples in {:.1} s, {} failed, {} missed",
        meta.samples,
        meta.duration_ns as f64 / 1e9,
        percent(profile.failed_share()),
        percent(profile.missed_share()),
    )
}

fn percent(share: f64) -> String {
    if share == 0.0 { "0%".to_owned() } else { format!("{:.2}%", share * 100.0) }
}

fn check_writable(template: &OutputTemplate) -> Result<(), SessionError> {
    let (directory, is_whole) = template.directory();
    let problem = match fs::metadata(&directory) {
        Err(error) => Some(reason(&error)),
        Ok(metadata) if !metadata.is_dir() => Some("it is not a directory".to_owned()),
        Ok(_) if !is_accessible(&directory) => Some("permission denied".to_owned()),
        Ok(_) => None,
    };
    let shown = printable(Path::new(template.as_os_str()));
    if let Some(problem) = problem {
        let directory = printable(&directory);
        return Err(SessionError::Output(format!(
            "cannot write '{shown}': the directory '{directory}' cannot be used: {problem}"
        )));
    }
    let is_directory = is_whole && template.fixed().is_some_and(|path| path.is_dir());
    if is_directory {
        return Err(SessionError::Output(format!("cannot write '{shown}': it is a directory")));
    }
    Ok(())
}

fn is_accessible(directory: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(directory.as_os_str().as_encoded_bytes()) else {
        return false;
    };
    // SAFETY: `path` is a C string.
    unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

/// A path, and others like it for where it is taken.
fn alternatives(path: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    const MOST: u32 = 1000;
    let stem = path.file_stem().unwrap_or_default();
    let extension = path.extension().unwrap_or_default();
    let numbered = (2..MOST).map(move |number| {
        let mut name = stem.to_owned();
        name.push(format!("-{number}."));
        name.push(extension);
        path.with_file_name(name)
    });
    std::iter::once(path.to_owned()).chain(numbered)
}

fn unused(path: PathBuf) -> PathBuf {
    let free = alternatives(&path).find(|path| fs::symlink_metadata(path).is_err());
    free.unwrap_or(path)
}

/// Makes something at the first path where nothing is.
fn first_unused(path: &Path, mut create: impl FnMut(&Path) -> io::Result<()>) -> Option<PathBuf> {
    for path in alternatives(path) {
        match create(&path) {
            Ok(()) => return Some(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => break,
        }
    }
    None
}

fn create_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    debug_assert!(file.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 == 0));
    Ok(file)
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write '{}': {}", printable(path), reason(error))
}

/// The system's words for an error, without Rust's number behind them.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// A path for one line of a terminal.
fn printable(path: &Path) -> String {
    let bytes = path.as_os_str().to_owned().into_vec();
    String::from_utf8_lossy(&bytes).chars().flat_map(escape).collect()
}

fn escape(letter: char) -> impl Iterator<Item = char> {
    let escaped = letter.is_control().then(|| letter.escape_default());
    let plain = (!letter.is_control()).then_some(letter);
    escaped.into_iter().flatten().chain(plain)
}
