//! What the process knows of itself: pid, command line, executable, privileges.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
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

/// The user whose rights the process has.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
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
    match PythonLine::read(command).program {
        Program::Module(name) => name,
        Program::Script(path) => base(path).unwrap_or_default(),
        Program::Unnamed => command.first().and_then(base).unwrap_or_else(|| "python".to_owned()),
    }
}

/// Whether a Python command line has `-E` or `-I`, with which Python does not look at its
/// environment variables.
pub fn ignores_environment(command: &[OsString]) -> bool {
    PythonLine::read(command).ignores_environment
}

/// What a Python command line says, read as CPython reads it (`Python/getopt.c`).
struct PythonLine<'a> {
    ignores_environment: bool,
    program: Program<'a>,
}

enum Program<'a> {
    Module(String),
    Script(&'a OsString),
    Unnamed,
}

impl<'a> PythonLine<'a> {
    fn read(command: &'a [OsString]) -> Self {
        let mut line = Self { ignores_environment: false, program: Program::Unnamed };
        let mut words = command.iter().skip(1);
        while let Some(word) = words.next() {
            let Some(letters) = word.as_bytes().strip_prefix(b"-").filter(|it| !it.is_empty())
            else {
                line.program = Program::Script(word);
                break;
            };
            match letters {
                b"-" => {
                    line.program = words.next().map_or(Program::Unnamed, Program::Script);
                    break;
                }
                b"-check-hash-based-pycs" => drop(words.next()),
                [b'-', ..] => {}
                _ => {
                    if line.is_last(letters, &mut words) {
                        break;
                    }
                }
            }
        }
        line
    }

    /// Reads the letters of one word. Returns whether what follows belongs to the program.
    fn is_last(&mut self, letters: &[u8], words: &mut impl Iterator<Item = &'a OsString>) -> bool {
        for (at, letter) in letters.iter().enumerate() {
            let rest = &letters[at + 1..];
            let mut argument = || match rest {
                [] => words.next().map(|word| word.as_bytes()),
                _ => Some(rest),
            };
            match letter {
                b'E' | b'I' => self.ignores_environment = true,
                b'c' => return true,
                b'm' => {
                    let module = argument().map(String::from_utf8_lossy);
                    self.program = module.map_or(Program::Unnamed, |it| Program::Module(it.into()));
                    return true;
                }
                b'W' | b'X' => {
                    argument();
                    return false;
                }
                _ => {}
            }
        }
        false
    }
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
        assert_eq!(name(&["python3", "-uEmpip", "list"]), "pip");
        assert_eq!(name(&["python3", "-Xdev", "-W", "error", "--", "-x.py"]), "-x.py");
        assert_eq!(name(&["python3", "--check-hash-based-pycs", "never", "x.py"]), "x.py");
        assert_eq!(name(&["python3"]), "python3");
        assert_eq!(name(&[]), "python");
    }

    #[test]
    fn the_environment_is_ignored_where_python_is_told_so() {
        let ignores = |line: &str| {
            ignores_environment(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
        };
        for line in [
            "python -E",
            "python -I x.py",
            "python -sBE -c pass",
            "python -uIc pass",
            "python -X a -Wb -E",
        ] {
            assert!(ignores(line), "{line}");
        }
        for line in [
            "python",
            "-E",
            "python x.py -E",
            "python -c -E",
            "python -m -E",
            "python -mE",
            "python -X -E",
            "python -WE",
            "python - -E",
            "python -- -E",
            "python --check-hash-based-pycs -E",
            "python --Env",
        ] {
            assert!(!ignores(line), "{line}");
        }
    }
}
