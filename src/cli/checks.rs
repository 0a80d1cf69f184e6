//! What can be found wrong before the program is started.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::report::unreadable as unreadable_recording;
use super::{Failure, reason};
use crate::config::{Config, Format, OutputTemplate, Style};
use crate::profile::recording::read_file;
use crate::session::is_directory;

const LIBRARY: &str = "libpysamp.so";

/// Reads the recording to compare with, if there is one, to find out early that it cannot be.
pub(super) fn baseline(style: &Style) -> Result<(), Failure> {
    match &style.baseline {
        Some(path) => read_file(path)
            .map(drop)
            .map_err(|error| Failure::usage(unreadable_recording(path, &error))),
        None => Ok(()),
    }
}

/// The script is there and can be read; `-` is stdin.
pub(super) fn script(script: &OsStr) -> Result<(), Failure> {
    let path = Path::new(script);
    if script == "-" {
        return Ok(());
    }
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = path.display();
            // A word without an ending or a folder may be meant as a command.
            let hint = match path.extension().is_none() && !name.to_string().contains('/') {
                true => format!("; to profile a command, write 'pysamp run -- {name}'"),
                false => String::new(),
            };
            Err(Failure::usage(format!("cannot find the script '{name}'{hint}")))
        }
        Err(error) => Err(unreadable(path, &error)),
        Ok(_) if !may(path, libc::R_OK) => Err(unreadable(path, &std::io::Error::last_os_error())),
        Ok(_) => Ok(()),
    }
}

fn unreadable(script: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read the script '{}': {}", script.display(), reason(error)))
}

/// The executable that a command names, found as a shell finds it.
pub(super) fn command(name: &OsStr) -> Result<PathBuf, Failure> {
    let shown = name.display();
    if let Some(path) = on_path(name) {
        return Ok(path);
    }
    let path = Path::new(name);
    if path.is_dir() && is_path(name) {
        return Err(Failure::usage(format!("'{shown}' is a directory, not a command")));
    }
    if path.is_file() && path.extension().is_some_and(|extension| extension == "py") {
        return Err(Failure::usage(format!(
            "'{shown}' is not an executable on PATH; to run it with Python leave out the '--'"
        )));
    }
    if path.is_file() && is_path(name) {
        return Err(Failure::usage(format!("'{shown}' is not executable")));
    }
    Err(Failure::usage(format!("cannot find the command '{shown}'")))
}

/// The interpreter that `--python` names.
pub(super) fn python(name: &OsStr) -> Result<PathBuf, Failure> {
    let shown = name.display();
    on_path(name).ok_or_else(|| {
        Failure::usage(if Path::new(name).exists() && is_path(name) {
            format!("--python: '{shown}' is not executable")
        } else {
            format!("--python: cannot find '{shown}'")
        })
    })
}

/// The executable of that name on PATH; a name with a slash is itself the path.
pub(super) fn on_path(name: &OsStr) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    if is_path(name) {
        return Some(PathBuf::from(name)).filter(|path| is_executable(path));
    }
    // What the C library takes where there is no PATH.
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&path)
        // An empty entry is the working directory; a bare name would be searched for again.
        .map(|entry| if entry.as_os_str().is_empty() { PathBuf::from(".") } else { entry })
        .map(|entry| entry.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_path(name: &OsStr) -> bool {
    name.as_bytes().contains(&b'/')
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && may(path, libc::X_OK)
}

/// The outputs that were named can be written, as far as that can be known without writing them.
pub(super) fn outputs(config: &Config) -> Result<(), Failure> {
    if config.output.is_none() {
        return Ok(());
    }
    config.outputs().iter().try_for_each(|(format, template)| output(*format, template))
}

fn output(format: Format, template: &OutputTemplate) -> Result<(), Failure> {
    if let Some(path) = template.fixed() {
        let shown = path.display();
        let is_file = !is_directory(format, &path);
        if path.is_dir() && is_file {
            return Err(Failure::usage(format!(
                "the output '{shown}' is a directory; name a file"
            )));
        }
        if path.exists() && is_file {
            return if may(&path, libc::W_OK) {
                Ok(())
            } else {
                let error = std::io::Error::last_os_error();
                Err(Failure::usage(format!("cannot write to '{shown}': {}", reason(&error))))
            };
        }
    }
    let (directory, whole) = template.directory();
    let shown = directory.display();
    match directory.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::usage(format!("there is no directory '{shown}' to write the output to")))
        }
        Err(error) => Err(Failure::usage(format!(
            "cannot write to the directory '{shown}': {}",
            reason(&error)
        ))),
        Ok(data) if !data.is_dir() => Err(Failure::usage(format!(
            "the output cannot go into '{shown}', which is no directory"
        ))),
        Ok(_) if whole && !may(&directory, libc::W_OK | libc::X_OK) => {
            let error = std::io::Error::last_os_error();
            Err(Failure::usage(format!(
                "cannot write to the directory '{shown}': {}",
                reason(&error)
            )))
        }
        Ok(_) => Ok(()),
    }
}

/// No recording is added up twice.
pub(super) fn differ(files: &[PathBuf]) -> Result<(), Failure> {
    let mut seen = HashMap::new();
    for path in files {
        let Ok(file) = path.metadata() else { continue };
        let key = (file.dev(), file.ino());
        if let Some(other) = seen.insert(key, path).filter(|_| file.is_file()) {
            let (other, path) = (other.display(), path.display());
            return Err(Failure::usage(format!(
                "the recordings '{other}' and '{path}' are the same; name it once"
            )));
        }
    }
    Ok(())
}

/// The output takes the place of nothing that was read.
pub(super) fn is_not_read(output: &Path, read: &[impl AsRef<Path>]) -> Result<(), Failure> {
    // A link in that place is replaced, and what it leads to stays.
    let Ok(place) = output.symlink_metadata() else { return Ok(()) };
    let is_same = |file: &std::fs::Metadata| (file.dev(), file.ino()) == (place.dev(), place.ino());
    let found = read
        .iter()
        .map(AsRef::as_ref)
        .find(|path| path.metadata().is_ok_and(|file| is_same(&file)));
    match found.filter(|_| place.is_file()) {
        Some(path) => Err(Failure::usage(format!(
            "the output would take the place of the recording '{}'; name another file",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// The library that belongs to this executable.
pub(super) fn library() -> Result<PathBuf, Failure> {
    let executable =
        std::env::current_exe().and_then(|path| path.canonicalize()).map_err(|error| {
            Failure::broken(format!("cannot tell where pysamp itself is: {}", reason(&error)))
        })?;
    let directory = executable.parent().unwrap_or(Path::new("/"));
    let beside = directory.join(LIBRARY);
    let candidates = [Some(beside), directory.parent().map(|up| up.join("lib").join(LIBRARY))];
    candidates.into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
        Failure::broken(format!(
            "cannot find {LIBRARY}, which belongs beside '{}' or in '../lib'",
            executable.display()
        ))
    })
}

/// `access(2)` for the effective user.
fn may(path: &Path, mode: i32) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the path is a NUL-terminated string that lives through the call.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) == 0 }
}
