//! Where the profile goes: a file of its own, or the directory of `pysamp run`; and the one line
//! on stderr.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::SessionError;
use crate::config::{Config, Format, OutputTemplate, TableOptions};
use crate::export;
use crate::os::{process, thread};
use crate::profile::Profile;

/// The directory in which `pysamp run` collects what its processes leave.
const RUN_DIR_VARIABLE: &str = "PYSAMP_RUN_DIR";

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

    /// Writes the finished profile and says so, or why not, in one line. Returns the path.
    pub fn deliver(&self, profile: &Profile) -> Result<PathBuf, String> {
        let delivered = self.write_finished(profile);
        let (Ok((_, line)) | Err(line)) = &delivered;
        self.stderr.line(line);
        delivered.map(|(path, _)| path)
    }

    fn write_finished(&self, profile: &Profile) -> Result<(PathBuf, String), String> {
        let counts = counts(profile);
        if let Some(directory) = self.shown_by_command() {
            let shown = unused(directory.join(format!("{}.table", profile.meta.pid)));
            return match self.write_file(profile, export::Format::PstatsTable, &shown) {
                Ok(()) => Ok((shown, counts)),
                Err(error) => Err(cannot_write(&shown, &error)),
            };
        }
        let path = self.write(profile, None)?;
        self.leave_mark(profile.meta.pid, "done");
        let here = std::env::current_dir().unwrap_or_default();
        let shown = path.strip_prefix(&here).unwrap_or(&path);
        let line = format!("wrote {}: {counts}", printable(shown));
        Ok((path, line))
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
        // A name that the user did not choose never takes the place of an older profile. Nor does
        // any name take that of the program which had this process before.
        let is_own = is_chosen && self.template.as_ref().is_some_and(OutputTemplate::has_pid);
        let takes_place = is_chosen && !(is_own && is_newer_than_process(&path));
        let path = if takes_place { path } else { unused(path) };
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
        let mut created = create_private(&temporary);
        let has_no_room = |error: &io::Error| error.raw_os_error() == Some(libc::EMFILE);
        if created.as_ref().is_err_and(has_no_room) && thread::take_own_descriptors() {
            created = create_private(&temporary);
        }
        let written = created.and_then(|file| self.export(profile, format, file));
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

/// What descriptor 2 of the process that the user started was, for those that it started: device
/// and file, or zeroes.
static FIRST_STDERR: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Hands that on to programs that a process executes.
const FIRST_STDERR_VARIABLE: &str = "PYSAMP_STDERR";

impl Stderr {
    /// Remembers what descriptor 2 is. A child whose descriptor 2 is not that of the process which
    /// the user started says nothing: somebody is about to read what it prints.
    pub fn now() -> Self {
        let first = FIRST_STDERR.each_ref().map(|part| part.load(Ordering::Relaxed));
        let identity = identity_of_stderr();
        let is_first = |own: &(u64, u64)| first == [0, 0] || first == [own.0, own.1];
        Self { identity: identity.filter(is_first) }
    }

    /// At load: this process is the first, or was started by it. Nobody may be using the
    /// environment.
    pub fn follow() {
        let parse = |text: String| {
            let (device, file) = text.split_once(':')?;
            Some((device.parse().ok()?, file.parse().ok()?))
        };
        if let Some(first) = std::env::var(FIRST_STDERR_VARIABLE).ok().and_then(parse) {
            remember_first(first);
        } else if let Some(own) = identity_of_stderr()
            && process::threads() == Some(1)
        {
            remember_first(own);
            // SAFETY: there is one thread.
            unsafe { std::env::set_var(FIRST_STDERR_VARIABLE, format!("{}:{}", own.0, own.1)) };
        }
    }

    /// In a forked child, if it is not known yet.
    pub fn inherit() {
        let is_known = FIRST_STDERR.iter().any(|part| part.load(Ordering::Relaxed) != 0);
        if let Some(own) = identity_of_stderr().filter(|_| !is_known) {
            remember_first(own);
        }
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

fn remember_first(identity: (u64, u64)) {
    FIRST_STDERR[0].store(identity.0, Ordering::Relaxed);
    FIRST_STDERR[1].store(identity.1, Ordering::Relaxed);
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

/// Whether a file was written since this process began, by whatever program.
fn is_newer_than_process(path: &Path) -> bool {
    let written = || fs::metadata(path).ok().filter(fs::Metadata::is_file)?.modified().ok();
    let Some(written) = written() else { return false };
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    process::start_unix_ns().is_some_and(|start| written > u128::from(start))
}

fn unused(path: PathBuf) -> PathBuf {
    const MOST: u32 = 1000;
    let stem = path.file_stem().unwrap_or_default().to_owned();
    let extension = path.extension().unwrap_or_default().to_owned();
    let mut candidate = path;
    for number in 2..MOST {
        if fs::symlink_metadata(&candidate).is_err() {
            break;
        }
        let mut name = stem.clone();
        name.push(format!("-{number}"));
        if !extension.is_empty() {
            name.push(".");
            name.push(&extension);
        }
        candidate.set_file_name(name);
    }
    candidate
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
