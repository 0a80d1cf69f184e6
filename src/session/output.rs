//! Where profiles go: files of their own, or the directory of `pysamp run`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::stderr::Stderr;
use super::{SessionError, files};
use crate::config::{Config, Format, OutputTemplate, Style, View, before_ending, with_ending};
use crate::export::{self, Writer};
use crate::os::{descriptors, process};
use crate::profile::{Meta, Profile};

/// The directory in which `pysamp run` collects what its processes leave.
const RUN_DIR_VARIABLE: &str = "PYSAMP_RUN_DIR";

/// How the name of a recording ends.
const RECORDING: &str = "pysamp";
const UNFINISHED: &str = "unfinished.pysamp";

/// How to write the profiles of one session.
pub struct Output {
    /// What is written, and where to.
    files: Vec<(Format, OutputTemplate)>,
    /// Whether `pysamp run` shows what it can.
    is_shown: bool,
    view: View,
    /// The working directory at the start.
    base: PathBuf,
    /// What the user has chosen.
    template: Option<OutputTemplate>,
    /// Whether `pysamp run` makes one profile of this one and others.
    is_collected: bool,
    /// Whether every profile is a numbered one.
    is_numbered: bool,
    last_number: u32,
    style: Style,
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
#[derive(PartialEq, Eq)]
pub enum Place {
    /// To where the options say.
    Usual,
    /// The same without what `pysamp run` shows.
    Unshown,
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
        let output = Self::in_directory(config, base, run_dir);
        if output.template.is_some() {
            for (format, template) in &output.files {
                check_writable(*format, template)?;
            }
        }
        Ok(output)
    }

    /// For a command that has checked its output: names that it did not choose are in `base`.
    pub fn of_command(config: &Config, base: PathBuf) -> Self {
        Self::in_directory(config, base, None)
    }

    fn in_directory(config: &Config, base: PathBuf, run_dir: Option<PathBuf>) -> Self {
        let template = config.output.as_ref().map(|template| template.anchored(&base));
        let has_number = template.as_ref().is_some_and(OutputTemplate::has_number);
        let is_numbered = config.rotate.is_some() || config.paused || has_number;
        let is_shown = run_dir.is_some() && template.is_none() && !is_numbered;
        let mut files = config.outputs();
        for (_, template) in &mut files {
            *template = template.anchored(&base);
        }
        Self {
            files,
            is_shown,
            is_collected: config.subprocesses && run_dir.is_some(),
            view: config.view.clone(),
            base,
            template,
            is_numbered,
            last_number: 0,
            style: config.style.clone(),
            run_dir,
            unsaid: Unsaid::default(),
            has_complained: false,
            stderr: Stderr::now(),
        }
    }

    /// Makes the file to record to while sampling goes on, beside the output; nothing where there
    /// can be none.
    pub fn begin_recording(&self, meta: &Meta, create: impl FnMut(&Path) -> io::Result<()>) {
        // The finished profile may be a recording as well, and has the name then.
        let has_name = self.files.iter().any(|(format, _)| *format == Format::Recording);
        let ending = if has_name { UNFINISHED } else { RECORDING };
        let name = format!("pysamp_{}.{ending}", meta.pid);
        let link = self.run_dir.as_ref().map(|run| run.join(format!("{}.{RECORDING}", meta.pid)));
        if let (Some(place), true) = (&link, self.is_all_shown() || self.is_collected) {
            first_unused(place, create);
            return;
        }
        let place = match &self.template {
            Some(template) => {
                let (pid, start, program) = (meta.pid, meta.start_unix_ns, &meta.program);
                let output = template.expand(pid, start, program, None);
                let beside = output.with_extension(ending);
                if files::is_stream(&output) || beside == output {
                    self.base.join(name)
                } else {
                    beside
                }
            }
            None => self.base.join(name),
        };
        let made = first_unused(&place, create);
        if let (Some(path), Some(link)) = (made, link) {
            first_unused(&link, |link| symlink(&path, link));
        }
    }

    /// Writes the finished profile and says so, or why not, in one line. Without the profile the
    /// recording is all that is left of it. Returns the paths.
    pub fn deliver(
        &mut self,
        profile: &Profile,
        recording: Option<&Path>,
    ) -> Result<Vec<PathBuf>, String> {
        if let Some(directory) = self.run_dir.as_deref().filter(|_| self.is_collected) {
            let place = directory.join(format!("{}.profile", profile.meta.pid));
            let write = |out: &mut dyn Write| export::recording::write(profile, out);
            let written = files::add(variants(&place), write);
            return written.map(|(_, path)| vec![path]).map_err(|error| {
                let line = cannot_write(&place, &error);
                // Once the command has ended, it has what was recorded until then.
                if directory.is_dir() {
                    self.stderr.line(&line);
                }
                line
            });
        }
        let shown = self.write_shown(profile);
        if let Err(line) = &shown {
            self.stderr.line(line);
        }
        if !self.is_all_shown() {
            let written = self.write_and_say(profile, Place::Unshown, recording)?;
            return Ok(shown?.into_iter().chain(written).collect());
        }
        if shown.is_ok() {
            self.stderr.line(&counts(&profile.meta));
        }
        shown
    }

    /// Writes what `pysamp run` will print, if there is anything.
    fn write_shown(&self, profile: &Profile) -> Result<Vec<PathBuf>, String> {
        let mut shown: Vec<Format> =
            self.files.iter().filter_map(|file| self.shown(file)).collect();
        shown.dedup();
        let Some(directory) = self.run_dir.as_deref().filter(|_| !shown.is_empty()) else {
            return Ok(Vec::new());
        };
        let place = directory.join(format!("{}.table", profile.meta.pid));
        let profile = profile.viewed(&self.view);
        let write = |out: &mut dyn Write| export::write_all(&shown, &profile, &self.style, out);
        let written = files::add(variants(&place), write);
        written.map(|(_, path)| vec![path]).map_err(|error| cannot_write(&place, &error))
    }

    /// What `pysamp run` shows of a format, if it does.
    fn shown(&self, (format, _): &(Format, OutputTemplate)) -> Option<Format> {
        format.on_terminal().filter(|_| self.is_shown)
    }

    fn is_all_shown(&self) -> bool {
        self.files.iter().all(|file| self.shown(file).is_some())
    }

    /// Writes a profile. One line says so, or why not, and what else was written since the last.
    /// If that fails, the `recording` is what is left of it.
    pub fn write_and_say(
        &mut self,
        profile: &Profile,
        place: Place,
        recording: Option<&Path>,
    ) -> Result<Vec<PathBuf>, String> {
        let paths = match (self.write(profile, place), recording) {
            (Ok(paths), _) => paths,
            (Err(line), recording) => {
                let kept = recording
                    .map(|path| format!("; what was recorded is kept in {}", path.display()));
                let mark = if kept.is_some() { "kept" } else { "declined" };
                self.leave_mark(profile.meta.pid, mark);
                let line = line + kept.as_deref().unwrap_or_default();
                self.stderr.line(&line);
                return Err(line);
            }
        };
        let shown = named(&paths);
        let Unsaid { profiles, mut meta } = std::mem::take(&mut self.unsaid);
        add_counts(&mut meta, &profile.meta);
        self.stderr.line(&match profiles {
            0 => format!("wrote {shown}: {}", counts(&meta)),
            _ => format!("wrote {} profiles, the last to {shown}: {}", profiles + 1, counts(&meta)),
        });
        Ok(paths)
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

    /// Writes a profile in every format. Returns the paths, or one sentence.
    pub fn write(&mut self, profile: &Profile, place: Place) -> Result<Vec<PathBuf>, String> {
        let is_numbered = match place {
            Place::File(_) => false,
            Place::Usual | Place::Unshown => self.is_numbered,
            Place::Numbered => true,
        };
        let first = is_numbered.then(|| self.last_number.saturating_add(1));
        let shown = profile.viewed(&self.view);
        let (mut written, mut failed) = (Vec::new(), Vec::new());
        for file in &self.files {
            if place == Place::Unshown && self.shown(file).is_some() {
                continue;
            }
            let whole_or_shown = if file.0.is_whole() { profile } else { &shown };
            let (path, result) = self.write_file(file, whole_or_shown, &place, first);
            match result {
                Ok((number, path)) => {
                    self.last_number = self.last_number.max(number);
                    written.push(path);
                }
                Err(error) => failed.push(cannot_write(&path, &error)),
            }
        }
        if !failed.is_empty() {
            let others = (!written.is_empty()).then(|| format!("wrote {}", named(&written)));
            failed.extend(others);
            return Err(failed.join("; "));
        }
        if !matches!(place, Place::File(_)) {
            self.leave_mark(profile.meta.pid, "done");
            self.tell_command(profile.meta.pid, &written);
        }
        Ok(written)
    }

    /// Writes a profile in one format, to the first of its numbered places if there is a `first`
    /// number. Returns the path of choice, and which number it was and which path.
    fn write_file(
        &self,
        (format, template): &(Format, OutputTemplate),
        profile: &Profile,
        place: &Place,
        first: Option<u32>,
    ) -> (PathBuf, io::Result<(u32, PathBuf)>) {
        let meta = &profile.meta;
        let expand = |number| template.expand(meta.pid, meta.start_unix_ns, &meta.program, number);
        let path = match place {
            Place::File(path) if self.files.len() > 1 => {
                let all: Vec<Format> = self.files.iter().map(|(format, _)| *format).collect();
                with_ending(path, &format.ending_after(path, &all))
            }
            Place::File(path) => path.clone(),
            _ => expand(None),
        };
        // A name that the user did not choose never takes the place of an older profile. Nor does
        // any name take that of the program which had this process before.
        let is_own = template.has_pid() && is_newer_than_process(&path);
        let is_replaced = match place {
            Place::File(_) => true,
            _ => self.template.is_some() && !is_own,
        };
        let first = first.filter(|_| !files::is_stream(&path));
        let path = first.map_or(path, |first| expand(Some(first)));
        let places: Box<dyn Iterator<Item = PathBuf>> = match first {
            Some(first) => Box::new((first..).map(|number| expand(Some(number)))),
            None => Box::new(variants(&path)),
        };
        let write =
            |out: &mut dyn Write| export::write_as(&path, *format, profile, &self.style, out);
        let written = match format.writer() {
            Writer::Either { fill, .. } if is_directory(*format, &path) => {
                files::add_directory(places, |path| fill(profile, &self.style, path))
            }
            _ if first.is_none() && is_replaced => {
                files::replace(&path, write).map(|()| (0, path.clone()))
            }
            _ => files::add(places, write),
        };
        let number = |index: usize| first.map_or(0, |first| first.saturating_add(index as u32));
        (path, written.map(|(index, path)| (number(index), path)))
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

    /// Tells `pysamp run` where files are.
    fn tell_command(&self, pid: u32, written: &[PathBuf]) {
        let Some(directory) = &self.run_dir else { return };
        let place = directory.join(format!("{pid}.written"));
        let write = |out: &mut dyn Write| {
            written.iter().try_for_each(|path| {
                out.write_all(path.as_os_str().as_bytes())?;
                out.write_all(b"\0")
            })
        };
        let _ = files::replace(&place, write);
    }

    fn leave_mark(&self, pid: u32, what: &str) {
        if let Some(directory) = &self.run_dir {
            let _ = files::mark(&directory.join(format!("{pid}.{what}")));
        }
    }
}

/// The second half of the banner, such as `4,021 samples in 4.0 s, 0.02% failed, 0% missed`.
pub fn counts(meta: &Meta) -> String {
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

fn check_writable(format: Format, template: &OutputTemplate) -> Result<(), SessionError> {
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
    let is_in_the_way = |path: PathBuf| path.is_dir() && !is_directory(format, &path);
    if is_whole && template.fixed().is_some_and(is_in_the_way) {
        return Err(SessionError::Output(format!("cannot write '{shown}': it is a directory")));
    }
    Ok(())
}

/// Whether a format makes a directory at a path; a device or pipe is written to whatever its name.
pub fn is_directory(format: Format, path: &Path) -> bool {
    format.is_directory(path) && !files::is_stream(path)
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
    descriptors::apart(process::start_unix_ns).is_some_and(|start| written > u128::from(start))
}

/// The path itself, then `name-2.html` and so on.
fn variants(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    const MOST: u32 = 1000;
    let path = path.to_owned();
    let others = path.clone();
    std::iter::once(path)
        .chain((2..MOST).map(move |number| before_ending(&others, &format!("-{number}"))))
}

/// Several paths as they are told of: from here if they are below.
fn named(paths: &[PathBuf]) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let shown = paths.iter().map(|path| path.strip_prefix(&here).unwrap_or(path).display());
    shown.map(|path| path.to_string()).collect::<Vec<_>>().join(", ")
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
