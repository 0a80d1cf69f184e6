//! Where the tools are, and how they are run.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pysamp::export::{self, Format, Style};
use pysamp::profile::Profile;

/// One of the tools that `tests/consumers.sh` provides; on a build server none may be missing.
pub fn consumer(name: &str) -> Option<PathBuf> {
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
    let cache =
        env::var_os("PYSAMP_CACHE").map_or_else(|| home.join(".cache/pysamp"), PathBuf::from);
    let path = cache.join("consumers").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(env::var_os("CI").is_none(), "tests/consumers.sh provides {name}");
    eprintln!("not checked: {name} is not there; tests/consumers.sh provides it");
    None
}

/// A profile in a format.
pub fn written(format: Format, profile: &Profile) -> Vec<u8> {
    let mut out = Vec::new();
    export::write(format, profile, &Style::default(), &mut out).unwrap();
    out
}

/// Writes a profile to a file.
pub fn write_to(path: &Path, format: Format, profile: &Profile) {
    fs::write(path, written(format, profile)).unwrap();
}

/// What a command prints; it must succeed.
pub fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
