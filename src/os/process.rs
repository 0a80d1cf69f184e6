//! What the process knows of itself: pid, command line, executable, privileges.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The pid, asked from the kernel: a cached one would be stale after a fork.
pub fn pid() -> u32 {
    // SAFETY: getpid takes nothing and cannot fail.
    unsafe { libc::getpid() as u32 }
}

/// Whether the process runs with raised privileges (set-user-id and the like), where the
/// environment is not to be trusted.
pub fn is_secure_execution() -> bool {
    // SAFETY: getauxval only reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The executable's path, from the kernel.
pub fn executable() -> Option<PathBuf> {
    std::fs::read_link("/proc/self/exe").ok()
}

/// The command line, arguments as the kernel shows them; empty where `/proc` is missing.
pub fn command_line() -> Vec<OsString> {
    const LONGEST: u64 = 64 * 1024;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open("/proc/self/cmdline") {
        let _ = file.take(LONGEST).read_to_end(&mut bytes);
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|&byte| byte == 0).map(|part| OsString::from_vec(part.to_vec())).collect()
}

/// A short name for the program that a Python command line runs: the script's or module's base
/// name, else the executable's.
pub fn program_name(command: &[OsString]) -> String {
    let base = |path: &OsString| {
        Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned())
    };
    let mut arguments = command.iter().skip(1);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        match text.as_ref() {
            "-m" => {
                if let Some(module) = arguments.next() {
                    return module.to_string_lossy().into_owned();
                }
            }
            "-c" => break,
            "-X" | "-W" | "--check-hash-based-pycs" => {
                arguments.next();
            }
            option if option.starts_with('-') => {}
            _ => return base(argument).unwrap_or_default(),
        }
    }
    command.first().and_then(base).unwrap_or_else(|| "python".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(words: &[&str]) -> String {
        program_name(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn program_is_named_after_script_or_module() {
        assert_eq!(name(&["/usr/bin/python3", "dir/app.py", "-m", "x"]), "app.py");
        assert_eq!(name(&["python3", "-X", "dev", "-u", "-m", "pip", "list"]), "pip");
        assert_eq!(name(&["/usr/bin/python3.12", "-c", "pass"]), "python3.12");
        assert_eq!(name(&["python3"]), "python3");
        assert_eq!(name(&[]), "python");
    }
}
