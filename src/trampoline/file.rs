//! Files that profilers look for by name in a directory that everybody may write to.
//!
//! They are made, or taken only if nobody else can have made them, and opened anew for each addition:
//! a descriptor that is kept could be closed by the application, and its number given to a file of its
//! own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::os::process;

/// A file of this process's, to which is only ever added.
#[derive(Debug)]
pub(super) struct Additions {
    path: PathBuf,
    /// Device and inode: what is at the path may be another file by now.
    identity: (u64, u64),
}

impl Additions {
    /// Goes on with a file that this process's user made since the process began; what is older, of an
    /// earlier process with the same number, is replaced. Links and others' files are refused.
    pub(super) fn go_on(path: &Path) -> io::Result<Self> {
        match Self::create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        let began = process::start_unix_ns().map_or(0, |ns| (ns / 1_000_000_000) as i64);
        let there = fs::symlink_metadata(path)?;
        if !is_ours(&there) {
            return Err(foreign());
        }
        if there.mtime() >= began {
            let opened = open(path)?.metadata()?;
            if is_ours(&opened) {
                return Ok(Self { path: path.to_owned(), identity: identity(&opened) });
            }
        }
        Self::replace(path)
    }

    /// Makes a new file, in the place of one of this user's.
    pub(super) fn replace(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(there) if !is_ours(&there) => return Err(foreign()),
            Ok(_) => fs::remove_file(path)?,
            Err(_) => {}
        }
        Self::create(path)
    }

    fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .append(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        // Whatever the umask takes away or leaves.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        Ok(Self { path: path.to_owned(), identity: identity(&file.metadata()?) })
    }

    /// Adds bytes at the end, in one piece.
    pub(super) fn add(&self, bytes: &[u8]) -> io::Result<()> {
        self.open()?.write_all(bytes)
    }

    /// The file, to be added to.
    pub(super) fn open(&self) -> io::Result<File> {
        let file = open(&self.path)?;
        match self.is(&file.metadata()?) {
            true => Ok(file),
            false => Err(foreign()),
        }
    }

    /// Whether this is what some descriptor or path leads to.
    pub(super) fn is(&self, other: &fs::Metadata) -> bool {
        identity(other) == self.identity
    }
}

/// A pipe in the file's place would not be waited for.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().read(true).append(true).custom_flags(flags).open(path)
}

/// A plain file that this user alone can write to, under one name.
fn is_ours(there: &fs::Metadata) -> bool {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    there.is_file()
        && there.uid() == process::effective_user()
        && there.nlink() == 1
        && there.mode() & OTHERS_MAY_WRITE == 0
}

fn foreign() -> io::Error {
    io::Error::other("something that is not this process's is in its place")
}

fn identity(there: &fs::Metadata) -> (u64, u64) {
    (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_others_put_there_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["file", "other"].map(|name| directory.path().join(name));
        let refused = || Additions::go_on(&path).is_err() && Additions::replace(&path).is_err();
        fs::write(&other, "text").unwrap();
        symlink(&other, &path).unwrap();
        assert!(refused());
        fs::remove_file(&path).unwrap();
        fs::hard_link(&other, &path).unwrap();
        assert!(refused());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refused());
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(refused());
        assert_eq!(fs::read(&other).unwrap(), b"text");
    }

    #[test]
    fn what_is_there_of_this_process_is_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = Additions::go_on(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        file.add(b"one\n").unwrap();
        Additions::go_on(&path).unwrap().add(b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        // Of an earlier process with the same number.
        let old = File::options().write(true).open(&path).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        let anew = Additions::go_on(&path).unwrap();
        anew.add(b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
        assert!(file.add(b"one\n").is_err());
        Additions::replace(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
