//! Where profiles go: files of their own, or the directory of `pysamp run`; and the lines on stderr.
#![allow(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{SessionError, files};
use crate::config::{Config, Format, Mode, OutputTemplate, TableOptions};
use crate::export;
use crate::os::process;
use crate::profile::{Meta, Profile};

/// The directory in which `pysamp run` collects what its processes leave.
const RUN_DIR_VARIABLE: &str = "PYSAMP_RUN_DIR";

/// How the name of a recording ends.
const RECORDING: &str = "pysamp";

/// How to write the profiles of one session.
pub struct Output {
    format: Format,
    mode: Mode,
    /// The working directory at the start.
    base: PathBuf,
    template: OutputTemplate,
    /// Whether the user has chosen the template.
    is_chosen: bool,
    /// Whether every profile is a numbered one.
    is_numbered: bool,
    last_number: u32,
    table: TableOptions,
    run_dir: Option<PathBuf>,
    unsaid: Unsaid,
    has_complained: bool,
    /// Where the banner and complaints go.
    pub stderr: Stderr,
}

/// Profiles that no line on stderr has told of yet, and their counts.
#[derive(Default)]
struct Unsaid {
    profiles: u32,
    meta: Meta,
}

/// Where one profile goes.
pub enum Place {
    /// To where the options say.
    Usual,
    /// To the next number.
    Numbered,
    /// To a file of the caller's choice.
    File(PathBuf),
}

impl Output {
    /// Checks at once what can be checked: an output that cannot be written is better known before
    /// hours of sampling than after. Relative paths are taken from the directory of now.
    pub fn new(config: &Config) -> Result<Self, SessionError> {
        let base = std::env::current_dir().unwrap_or_default();
        let run_dir = (!process::is_secure_execution())
            .then(|| std::env::var_os(RUN_DIR_VARIABLE))
            .flatten()
            .map(PathBuf::from)
            .filter(|path| path.is_dir());
        let output = Self::in_directory(config, base, run_dir)?;
        if output.is_chosen {
            check_writable(&output.template)?;
        }
        Ok(output)
    }

    /// For a command that has checked its output: names that it did not choose are in `base`.
    pub fn of_command(config: &Config, base: PathBuf) -> Result<Self, SessionError> {
        Self::in_directory(config, base, None)
    }

    fn in_directory(
        config: &Config,
        base: PathBuf,
        run_dir: Option<PathBuf>,
    ) -> Result<Self, SessionError> {
        let usual = || OutputTemplate::new(format!("pysamp_%p.{}", config.format.extension()));
        let template = match &config.output {
            Some(template) => template.clone(),
            None => usual().map_err(|error| SessionError::Output(error.to_string()))?,
        };
        let template = template.anchored(&base);
        Ok(Self {
            format: config.format,
            mode: config.mode,
            base,
            is_chosen: config.output.is_some(),
            is_numbered: config.rotate.is_some() || config.paused || template.has_number(),
            template,
            last_number: 0,
            table: config.table,
            run_dir,
            unsaid: Unsaid::default(),
            has_complained: false,
            stderr: Stderr::now(),
        })
    }

    /// Makes the file to record to while sampling goes on, beside the output; nothing where there
    /// can be none.
    pub fn begin_recording(&self, meta: &Meta, create: impl FnMut(&Path) -> io::Result<()>) {
        let name = format!("pysamp_{}.{RECORDING}", meta.pid);
        let place = match self.shown_by_command() {
            Some(directory) => directory.join(format!("{}.{RECORDING}", meta.pid)),
            None if self.is_chosen => {
                let (pid, start, program) = (meta.pid, meta.start_unix_ns, &meta.program);
                let output = self.template.expand(pid, start, program, None);
                let is_device = fs::metadata(&output).is_ok_and(|found| !found.is_file());
                let beside = output.with_extension(RECORDING);
                if is_device || beside == output { self.base.join(name) } else { beside }
            }
            None => self.base.join(name),
        };
        let made = first_unused(&place, create);
        if let (Some(path), Some(directory), None) = (made, &self.run_dir, self.shown_by_command())
        {
            let link = directory.join(format!("{}.{RECORDING}", meta.pid));
            first_unused(&link, |link| symlink(&path, link));
        }
    }

    /// Writes the finished profile and says so, or why not, in one line. Without the profile the
    /// recording is all that is left of it. Returns the path.
    pub fn deliver(
        &mut self,
        profile: &Profile,
        recording: Option<&Path>,
    ) -> Result<PathBuf, String> {
        let Some(directory) = self.shown_by_command() else {
            return self.write_and_say(profile, Place::Usual, recording);
        };
        let shown = directory.join(format!("{}.table", profile.meta.pid));
        let written = files::add(variants(&shown), |out| {
            let shown = profile.in_mode(self.mode);
            export::write(export::Format::PstatsTable, &shown, &self.table, out)
        });
        let written = written.map_err(|error| cannot_write(&shown, &error)).map(|(_, path)| path);
        let line = written.as_ref().map_or_else(Clone::clone, |_| counts(&profile.meta));
        self.stderr.line(&line);
        written
    }

    /// Writes a profile. One line says so, or why not, and what else was written since the last.
    /// If that fails, the `recording` is what is left of it.
    pub fn write_and_say(
        &mut self,
        profile: &Profile,
        place: Place,
        recording: Option<&Path>,
    ) -> Result<PathBuf, String> {
        let path = match (self.write(profile, place), recording) {
            (Ok(path), _) => path,
            (Err(line), recording) => {
                let kept = recording.map(|path| {
                    self.leave_mark(profile.meta.pid, "kept");
                    format!("; what was recorded is kept in {}", path.display())
                });
                let line = line + kept.as_deref().unwrap_or_default();
                self.stderr.line(&line);
                return Err(line);
            }
        };
        let here = std::env::current_dir().unwrap_or_default();
        let shown = path.strip_prefix(&here).unwrap_or(&path).display();
        let Unsaid { profiles, mut meta } = std::mem::take(&mut self.unsaid);
        add_counts(&mut meta, &profile.meta);
        self.stderr.line(&match profiles {
            0 => format!("wrote {shown}: {}", counts(&meta)),
            _ => format!("wrote {} profiles, the last to {shown}: {}", profiles + 1, counts(&meta)),
        });
        Ok(path)
    }

    /// Writes a numbered profile of many; only the first failure in a row is worth a line.
    pub fn write_quietly(&mut self, profile: &Profile) -> Result<(), String> {
        let written = self.write(profile, Place::Numbered);
        match &written {
            Ok(_) => {
                self.unsaid.profiles += 1;
                add_counts(&mut self.unsaid.meta, &profile.meta);
            }
            Err(line) if !self.has_complained => self.stderr.line(line),
            Err(_) => {}
        }
        self.has_complained = written.is_err();
        written.map(drop)
    }

    /// Writes a profile. Returns the path, or one sentence.
    pub fn write(&mut self, profile: &Profile, place: Place) -> Result<PathBuf, String> {
        let meta = &profile.meta;
        let expand =
            |number| self.template.expand(meta.pid, meta.start_unix_ns, &meta.program, number);
        let write = |out: &mut dyn Write| {
            export::write(self.format, &profile.in_mode(self.mode), &self.table, out)
        };
        let replace = |path: PathBuf| {
            files::replace(&path, write).map_err(|error| cannot_write(&path, &error))?;
            Ok(path)
        };
        let is_numbered = match place {
            Place::File(path) => return replace(path),
            Place::Usual => self.is_numbered,
            Place::Numbered => true,
        };
        let path = expand(None);
        if is_numbered && !files::is_stream(&path) {
            let first = self.last_number.saturating_add(1);
            let (index, path) = files::add((first..).map(|number| expand(Some(number))), write)
                .map_err(|error| cannot_write(&expand(Some(first)), &error))?;
            self.last_number = first + index as u32;
            self.leave_mark(meta.pid, "done");
            return Ok(path);
        }
        // A name that the user did not choose never takes the place of an older profile. Nor does
        // any name take that of the program which had this process before.
        let is_own = self.template.has_pid() && is_newer_than_process(&path);
        let path = if self.is_chosen && !is_own {
            replace(path)?
        } else {
            let (_, path) =
                files::add(variants(&path), write).map_err(|error| cannot_write(&path, &error))?;
            path
        };
        self.leave_mark(meta.pid, "done");
        Ok(path)
    }

    /// Says why there will be no profile.
    pub fn decline(&self, pid: u32, reason: &str) {
        self.stderr.line(&format!("{reason}; the program runs unprofiled"));
        self.leave_mark(pid, "declined");
    }

    /// Ends a session that has nothing to write.
    pub fn end_without_profile(&self, pid: u32) {
        self.leave_mark(pid, "done");
        if self.last_number == 0 {
            self.stderr.line("nothing was sampled: the signal to begin did not come");
        }
    }

    /// The run directory, if the profile is a table that `pysamp run` will print.
    fn shown_by_command(&self) -> Option<&Path> {
        let is_table = matches!(self.format, Format::Pstats | Format::PstatsTable);
        self.run_dir.as_deref().filter(|_| is_table && !self.is_chosen && !self.is_numbered)
    }

    fn leave_mark(&self, pid: u32, what: &str) {
        if let Some(directory) = &self.run_dir {
            let _ = files::create_private(&directory.join(format!("{pid}.{what}")));
        }
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

    /// Writes one line that begins with `pysamp: `, whatever names are in it, unless descriptor 2 has become something else:
    /// that may be a file of the application's.
    pub fn line(&self, text: &str) {
        if self.identity.is_some() && self.identity == identity_of_stderr() {
            let line = format!("pysamp: {}\n", export::one_line(text));
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
fn counts(meta: &Meta) -> String {
    format!(
        "{} samples in {:.1} s, {} failed, {} missed",
        meta.samples,
        meta.duration_ns as f64 / 1e9,
        percent(meta.failed_share()),
        percent(meta.missed_share()),
    )
}

fn add_counts(sum: &mut Meta, one: &Meta) {
    sum.samples += one.samples;
    sum.failed += one.failed;
    sum.ticks += one.ticks;
    sum.missed += one.missed;
    sum.duration_ns += one.duration_ns;
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
    let shown = template.as_os_str().display();
    if let Some(problem) = problem {
        let directory = directory.display();
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

/// The path itself, then `name-2.html` and so on.
fn variants(path: &Path) -> impl Iterator<Item = PathBuf> {
    const MOST: u32 = 1000;
    let stem = path.file_stem().unwrap_or_default().to_owned();
    let extension = path.extension().unwrap_or_default().to_owned();
    let path = path.to_owned();
    std::iter::once(path.clone()).chain((2..MOST).map(move |number| {
        let mut name = stem.clone();
        name.push(format!("-{number}"));
        if !extension.is_empty() {
            name.push(".");
            name.push(&extension);
        }
        path.with_file_name(name)
    }))
}

/// Makes something at the first path where nothing is.
fn first_unused(path: &Path, mut create: impl FnMut(&Path) -> io::Result<()>) -> Option<PathBuf> {
    for path in variants(path) {
        match create(&path) {
            Ok(()) => return Some(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => break,
        }
    }
    None
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write '{}': {}", path.display(), reason(error))
}

/// The system's words for an error, without Rust's number behind them.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}
