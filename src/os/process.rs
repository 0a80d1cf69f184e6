//! What the process knows of itself: pid, command line, executable, privileges.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use once_cell::race::OnceBox;

use super::clock;

/// The pid, asked from the kernel: a cached one would be stale after a fork.
pub fn pid() -> u32 {
    // SAFETY: getpid takes nothing and cannot fail.
    unsafe { libc::getpid() as u32 }
}

/// The pid of the parent; 1, or another process that takes care of orphans, once that is gone.
pub fn parent_pid() -> u32 {
    // SAFETY: getppid takes nothing and cannot fail.
    unsafe { libc::getppid() as u32 }
}

/// How many threads the process has, as the kernel counts them; `None` where `/proc` is missing.
/// Uses no file descriptor: the application may be about to take the lowest.
pub fn threads() -> Option<u64> {
    /// A directory is linked to by its parent and itself.
    const OWN_LINKS: u64 = 2;
    // SAFETY: an all-zero stat is a valid value and valid for writing; the path is a C string.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        (libc::stat(c"/proc/self/task".as_ptr(), &mut status) == 0)
            .then(|| (status.st_nlink as u64).saturating_sub(OWN_LINKS))
    }
}

/// Whether the calling thread is the last: there is but one other, the process's first, which has
/// ended and whose remains stay.
pub fn is_deserted() -> bool {
    // Remains have no program; that the program may not be looked at is another error.
    let first_has_ended = || {
        let link = std::fs::read_link("/proc/self/exe");
        link.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    threads() == Some(2) && first_has_ended()
}

/// When the process began, in nanoseconds since the Unix epoch, give or take the kernel's tick.
pub fn start_unix_ns() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = status.rsplit_once(')')?;
    const START: usize = 19;
    let ticks: u64 = fields.split_ascii_whitespace().nth(START)?.parse().ok()?;
    // SAFETY: sysconf takes an integer.
    let ticks_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    let after_boot = ticks.checked_mul(1_000_000_000)? / ticks_a_second.max(1);
    Some(clock::unix_ns().saturating_sub(clock::since_boot_ns().saturating_sub(after_boot)))
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

/// The command line as it was when this was first asked, or when the process that this one was
/// forked from first asked; empty where `/proc` is missing.
pub fn command_line() -> &'static [OsString] {
    // A fork in the middle of another thread's first asking leaves this one empty, and not locked.
    static FIRST: OnceBox<Vec<OsString>> = OnceBox::new();
    FIRST.get_or_init(|| Box::new(read_command_line()))
}

fn read_command_line() -> Vec<OsString> {
    const LONGEST: u64 = 64 * 1024;
    // Not the process's: that of its first thread is empty once it has ended.
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open("/proc/thread-self/cmdline") {
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
