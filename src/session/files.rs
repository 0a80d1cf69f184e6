//! Files that profiles are written to: private, whole or not there, never in the place of somebody
//! else's, and under no descriptor of the application's.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::os::{clock, descriptors, process};

/// Writes a file beside its place and moves it there, so that nobody ever sees half a profile and a
/// failure leaves what was there before. A device or pipe is written to as it is. A link is
/// replaced, not followed.
pub fn replace(path: &Path, write: impl Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    descriptors::apart(|| {
        if is_stream(path) {
            return export(open_stream(path)?, write);
        }
        written_beside(path, write)?.settle(|temporary| fs::rename(temporary, path))
    })
}

/// As [`replace`], but takes the first of some places in one directory where there is nothing yet.
/// Returns which that was.
pub fn add(
    places: impl Iterator<Item = PathBuf>,
    write: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(usize, PathBuf)> {
    add_made(places, |place| written_beside(place, &write))
}

/// As [`add`], but a directory, which `fill` finds empty. An empty one in its place is nothing.
pub fn add_directory(
    places: impl Iterator<Item = PathBuf>,
    fill: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<(usize, PathBuf)> {
    let create = |path: &Path| DirBuilder::new().mode(0o700).create(path);
    add_made(places, |place| {
        let (temporary, ()) = made_beside(place, create)?;
        fill(&temporary.0).map(|()| temporary)
    })
}

fn add_made(
    mut places: impl Iterator<Item = PathBuf>,
    make_beside: impl Fn(&Path) -> io::Result<Temporary>,
) -> io::Result<(usize, PathBuf)> {
    let mut place = places.next().ok_or(io::ErrorKind::InvalidInput)?;
    let mut index = 0;
    descriptors::apart(|| make_beside(&place))?.settle(|temporary| {
        loop {
            match rename_to_unused(temporary, &place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if temporary.is_dir() && fs::remove_dir(&place).is_ok() {
                        continue;
                    }
                }
                moved => return moved.map(|()| (index, place)),
            }
            place = places.next().ok_or(io::ErrorKind::AlreadyExists)?;
            index += 1;
        }
    })
}

/// Removes a profile that is not wanted any more, whatever it is.
pub fn remove(path: &Path) {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let _ = match is_directory {
        true => descriptors::apart(|| fs::remove_dir_all(path)),
        false => fs::remove_file(path),
    };
}

/// Leaves an empty file, which says something by its name.
pub fn mark(path: &Path) -> io::Result<()> {
    descriptors::apart(|| create_private(path).map(drop))
}

/// Makes a file that only its owner may read, and that was not there before.
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

/// Whether this is, or is a link to, a device, pipe or socket, or one of the process's descriptors,
/// as `/dev/stdout` is: that may be any file, and is written to behind what is there. In a
/// directory where everybody may make files, as in `/tmp`, what others have made does not count:
/// that is the kernel's own rule for links and pipes there, which not every system has turned on.
pub fn is_stream(path: &Path) -> bool {
    const STICKY_FOR_ALL: u32 = 0o1002;
    let Ok(entry) = fs::symlink_metadata(path) else { return false };
    let is_trusted = || {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let Ok(directory) = fs::metadata(parent.unwrap_or(Path::new("."))) else { return false };
        directory.mode() & STICKY_FOR_ALL != STICKY_FOR_ALL
            || [process::effective_user(), directory.uid()].contains(&entry.uid())
    };
    let is_written_to = |target: fs::Metadata| {
        !target.is_file() && !target.is_dir() || target.is_file() && is_descriptor(path)
    };
    !entry.is_file() && fs::metadata(path).is_ok_and(is_written_to) && is_trusted()
}

/// Whether a path leads to a descriptor of a process's, through whatever links.
fn is_descriptor(path: &Path) -> bool {
    /// As many as the kernel follows.
    const MOST_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Some(name) = path.file_name() else { return false };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let Ok(parent) = fs::canonicalize(parent.unwrap_or(Path::new("."))) else { return false };
        if parent.starts_with("/proc") && parent.ends_with("fd") {
            return true;
        }
        let Ok(target) = fs::read_link(parent.join(name)) else { return false };
        path = parent.join(target);
    }
    false
}

/// Does not wait for somebody to read from a pipe, and does not take a terminal as its own.
fn open_stream(path: &Path) -> io::Result<File> {
    let flags = libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_APPEND;
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    let is_special = kind.is_fifo() || kind.is_char_device() || kind.is_block_device();
    if !(is_special || kind.is_file() && is_descriptor(path)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor is open; its description is this file's own, so nobody else's way to
    // write is changed.
    match unsafe {
        libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&file), libc::F_SETFL, libc::O_APPEND)
    } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

fn export(file: File, write: impl Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()
}

/// A finished file or directory that is not in its place yet; removed if it does not get there.
struct Temporary(PathBuf);

impl Temporary {
    fn settle<T>(self, place: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        place(&self.0)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // In its place it has another name.
        remove(&self.0);
    }
}

fn written_beside(
    path: &Path,
    write: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Temporary> {
    let (temporary, file) = made_beside(path, create_private)?;
    export(file, write).map(|()| temporary)
}

/// Makes something under a name that is nobody's, in the directory of a path.
fn made_beside<T>(
    path: &Path,
    create: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<(Temporary, T)> {
    /// A process that was killed may have left a file behind, and the next may have its id.
    const TRIES: u32 = 8;
    let mut tried = 0;
    loop {
        let mut name = path.as_os_str().to_owned();
        let ending = format!(".{}-{:x}.part", process::pid(), clock::monotonic_ns());
        name.push(OsString::from(ending));
        tried += 1;
        match create(Path::new(&name)) {
            Ok(made) => return Ok((Temporary(name.into()), made)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

fn rename_to_unused(from: &Path, to: &Path) -> io::Result<()> {
    const NO_REPLACE: libc::c_uint = 1;
    let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (from_c, to_c) = (c_path(from)?, c_path(to)?);
    // SAFETY: both paths are C strings that live through the call.
    let status = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            from_c.as_ptr(),
            libc::AT_FDCWD,
            to_c.as_ptr(),
            NO_REPLACE,
        )
    };
    if status == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Not every file system can.
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL) if fs::symlink_metadata(to).is_ok() => {
            Err(io::ErrorKind::AlreadyExists.into())
        }
        Some(libc::ENOSYS | libc::EINVAL) => fs::rename(from, to),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn text(text: &'static str) -> impl Fn(&mut dyn Write) -> io::Result<()> {
        move |out| out.write_all(text.as_bytes())
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_private_and_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        replace(&path, text("one")).unwrap();
        replace(&path, text("two")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let fails =
            |out: &mut dyn Write| out.write_all(b"half").and(Err(io::ErrorKind::Other.into()));
        replace(&path, fails).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(names(directory.path()), ["x"]);
    }

    #[test]
    fn links_are_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [target, link] = ["target", "link"].map(|name| directory.path().join(name));
        fs::write(&target, "precious").unwrap();
        for aim in [target.as_path(), Path::new("nothing"), directory.path()] {
            let _ = fs::remove_file(&link);
            symlink(aim, &link).unwrap();
            replace(&link, text("profile")).unwrap();
            assert_eq!(fs::read_to_string(&link).unwrap(), "profile");
            assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(names(directory.path()), ["link", "target"]);
    }

    #[test]
    fn what_is_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        fs::write(place("1"), "old").unwrap();
        symlink("nothing", place("2")).unwrap();
        fs::create_dir(place("3")).unwrap();
        let places = || ["1", "2", "3", "4"].into_iter().map(place);
        let added = add(places(), text("new")).unwrap();
        assert_eq!(added, (3, place("4")));
        assert_eq!(fs::metadata(place("4")).unwrap().mode() & 0o7777, 0o600);
        let error = add(places(), text("newer")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(place("1")).unwrap(), "old");
        assert_eq!(fs::read_to_string(place("4")).unwrap(), "new");
        assert_eq!(names(directory.path()), ["1", "2", "3", "4"]);
    }

    #[test]
    fn directories_are_whole_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let places = || ["1", "2", "3"].into_iter().map(place);
        let fill = |path: &Path| fs::write(path.join("index"), "new");
        fs::create_dir(place("1")).unwrap();
        assert_eq!(add_directory(places(), fill).unwrap(), (0, place("1")));
        assert_eq!(fs::metadata(place("1")).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(add_directory(places(), fill).unwrap(), (1, place("2")));
        add_directory(places(), |path| fill(path).and(Err(io::ErrorKind::Other.into())))
            .unwrap_err();
        assert_eq!(names(directory.path()), ["1", "2"]);
        assert_eq!(fs::read_to_string(place("2").join("index")).unwrap(), "new");
        remove(&place("1"));
        assert_eq!(names(directory.path()), ["2"]);
    }

    #[test]
    fn streams_of_others_are_not_written_to_where_all_may_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("link");
        symlink("/dev/null", &path).unwrap();
        let mode = |mode| fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode));
        mode(0o1777).unwrap();
        assert!(is_stream(&path), "one's own");
        let own = process::effective_user();
        // Only root can make a link look like somebody else's.
        if own == 0 {
            std::os::unix::fs::lchown(&path, Some(12345), None).unwrap();
            assert!(!is_stream(&path));
            mode(0o755).unwrap();
            assert!(is_stream(&path));
        }
        assert!(!is_stream(directory.path()) && !is_stream(&directory.path().join("none")));
    }

    #[test]
    fn a_file_behind_a_descriptor_is_added_to() {
        let directory = tempfile::tempdir().unwrap();
        let [log, link] = ["log", "link"].map(|name| directory.path().join(name));
        fs::write(&log, "before, ").unwrap();
        let file = OpenOptions::new().write(true).open(&log).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        symlink(format!("/proc/self/fd/{number}"), &link).unwrap();
        for path in [&link, &PathBuf::from(format!("/dev/fd/{number}"))] {
            assert!(is_stream(path));
            replace(path, text("profile ")).unwrap();
        }
        assert_eq!(fs::read_to_string(&log).unwrap(), "before, profile profile ");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(!is_stream(&log));
        assert_eq!(names(directory.path()), ["link", "log"]);
    }

    #[test]
    fn a_pipe_without_a_reader_does_not_hang() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let c_path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is a C string.
        assert_eq!(unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) }, 0);
        let error = replace(&path, text("x")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO));
        let reader = std::thread::spawn({
            let path = path.clone();
            move || fs::read_to_string(path).unwrap()
        });
        let wanted = "x".repeat(1 << 20);
        let write = |out: &mut dyn Write| out.write_all(wanted.as_bytes());
        while replace(&path, write).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap().len(), wanted.len());
    }
}
