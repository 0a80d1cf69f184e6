//! Finds the CPythons of this machine and tells what each one is.

use std::collections::HashSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

/// A CPython to run programs on.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// The executable.
    pub path: PathBuf,
    /// Major, minor, micro.
    pub version: (u8, u8, u8),
    /// Built without the GIL.
    pub free_threaded: bool,
    /// Built with `--with-pydebug`.
    pub debug: bool,
    /// Takes the interpreter from a shared libpython.
    pub shared: bool,
    /// For people, such as `3.11.2 static debug`.
    pub name: String,
}

const FIRST: (u8, u8) = (3, 8);
const LAST: (u8, u8) = (3, 15);

/// What a build server must have: a minor version and, where it matters, which build of it.
const MATRIX: [&str; 11] = [
    "3.8",
    "3.9",
    "3.10",
    "3.11 shared",
    "3.11 static",
    "3.11 debug",
    "3.12",
    "3.13",
    "3.13t",
    "3.14",
    "3.15",
];

// Runs on every version there has been since 2.7.
const PROBE: &str = r#"
import sys, sysconfig
try:
    maps = open("/proc/self/maps").read()
except IOError:
    maps = ""
facts = sys.version_info[:3] + (
    hasattr(sys, "gettotalrefcount"),
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "/libpython" in maps,
)
print(" ".join(str(int(fact)) for fact in facts))
print(sys.executable)
print(hasattr(sys, "_getframe") and "PyPy" not in sys.version)
"#;

impl Interpreter {
    fn probe(path: &Path) -> Option<Self> {
        let output = Command::new(path)
            .args(["-c", PROBE])
            .env_remove("LD_PRELOAD")
            .env_remove("PYTHONSAMPLE")
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let [facts, executable, cpython] = text.lines().collect::<Vec<_>>().try_into().ok()?;
        let facts: Vec<u8> = facts.split(' ').filter_map(|fact| fact.parse().ok()).collect();
        let &[major, minor, micro, debug, free_threaded, shared] = facts.as_slice() else {
            return None;
        };
        if cpython != "True" {
            return None;
        }
        let [debug, free_threaded, shared] = [debug, free_threaded, shared].map(|fact| fact == 1);
        let mut name = format!("{major}.{minor}.{micro}");
        if free_threaded {
            name.push('t');
        }
        name.push_str(if shared { " shared" } else { " static" });
        if debug {
            name.push_str(" debug");
        }
        let version = (major, minor, micro);
        Some(Self { path: executable.into(), version, free_threaded, debug, shared, name })
    }

    /// Major and minor.
    pub fn minor(&self) -> (u8, u8) {
        (self.version.0, self.version.1)
    }

    fn kind(&self) -> ((u8, u8), bool, bool, bool) {
        (self.minor(), self.free_threaded, self.debug, self.shared)
    }

    fn is(&self, kind: &str) -> bool {
        let (version, build) = kind.split_once(' ').unwrap_or((kind, ""));
        let series = format!("{}.{}", self.version.0, self.version.1);
        let fits = match build {
            "debug" => self.debug,
            "shared" => self.shared && !self.debug,
            "static" => !self.shared && !self.debug,
            _ => !self.debug,
        };
        fits && version == if self.free_threaded { series + "t" } else { series }
    }
}

/// `directory/*/tail`, sorted.
fn below(directory: PathBuf, tail: &str) -> Vec<PathBuf> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path().join(tail)).collect();
    found.sort();
    found
}

fn candidates() -> Vec<PathBuf> {
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
    let pyenv = env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    let cache =
        env::var_os("PYSAMP_CACHE").map_or_else(|| home.join(".cache/pysamp"), PathBuf::from);
    let named = env::var_os("PYSAMP_PYTHONS").unwrap_or_default();
    let mut paths: Vec<PathBuf> = env::split_paths(&named).collect();
    paths.push("python3".into());
    paths.extend(below(pyenv.join("versions"), "bin/python"));
    paths.extend(below(cache.join("interpreters"), "bin/python3"));
    paths.extend(["/usr/bin/python3.11", "/usr/bin/python3.11-dbg"].map(PathBuf::from));
    paths
}

/// One of each kind, in order of version. The first found of a kind is it.
fn all() -> &'static [Interpreter] {
    static ALL: OnceLock<Vec<Interpreter>> = OnceLock::new();
    ALL.get_or_init(|| {
        let paths = candidates();
        let probed: Vec<Option<Interpreter>> = thread::scope(|scope| {
            let running: Vec<_> =
                paths.iter().map(|path| scope.spawn(|| Interpreter::probe(path))).collect();
            running.into_iter().map(|one| one.join().ok().flatten()).collect()
        });
        let mut kinds = HashSet::new();
        let mut found: Vec<Interpreter> =
            probed.into_iter().flatten().filter(|one| kinds.insert(one.kind())).collect();
        found.sort_by_key(Interpreter::kind);
        found
    })
}

/// The interpreters that pysamp supports; on a build server (`CI` is set) none may be missing.
pub fn supported() -> &'static [Interpreter] {
    static SUPPORTED: OnceLock<Vec<Interpreter>> = OnceLock::new();
    let found = SUPPORTED.get_or_init(|| {
        let fits = |one: &&Interpreter| (FIRST..=LAST).contains(&one.minor());
        all().iter().filter(fits).cloned().collect()
    });
    let missing: Vec<&str> =
        MATRIX.into_iter().filter(|kind| !found.iter().any(|one| one.is(kind))).collect();
    assert!(
        missing.is_empty() || env::var_os("CI").is_none(),
        "tests/provision.sh provides what is missing: {}",
        missing.join(", ")
    );
    assert!(!found.is_empty(), "no CPython from 3.8 to 3.15 is on this machine");
    found
}

/// Interpreters that are too old or too new, to be turned down politely.
pub fn unsupported() -> Vec<Interpreter> {
    let other = |one: &&Interpreter| !(FIRST..=LAST).contains(&one.minor());
    all().iter().filter(other).cloned().collect()
}
