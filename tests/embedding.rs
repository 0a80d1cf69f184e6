//! Programs that have pysamp linked in: hosts that embed Python, and CPythons of one's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Each topic uses its part of what is shared.
#![allow(dead_code, unused_imports, unsafe_code)]

mod support;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Cores, Interpreter, Run, ensure, library, on_all, run_to_end, supported};

/// How Python and pysamp come into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linked {
    /// A shared libpython, `libpysamp.a`.
    ToSharedPython,
    /// A static libpython whose symbols are exported, as extension modules need it.
    ToStaticPython,
    /// A static libpython that exports nothing.
    ToHiddenPython,
    /// A shared libpython, `-lpysamp`.
    Dynamically,
}

use Linked::*;

const WAYS: [Linked; 4] = [ToSharedPython, ToStaticPython, ToHiddenPython, Dynamically];

/// Where an interpreter's headers and libraries are.
struct Development {
    include: PathBuf,
    shared: Option<PathBuf>,
    archive: Option<PathBuf>,
    libraries: Vec<String>,
}

const DEVELOPMENT: &str = r#"
import os, sysconfig
get = sysconfig.get_config_var
paths = [sysconfig.get_paths()["include"], get("LIBDIR") or "", get("LIBPL") or ""]
shared = os.path.join(paths[1], "libpython" + get("LDVERSION") + ".so")
archive = os.path.join(paths[2], "libpython" + get("LDVERSION") + ".a")
print(paths[0] if os.path.exists(os.path.join(paths[0], "Python.h")) else "")
print(shared if os.path.exists(shared) else "")
print(archive if os.path.exists(archive) else "")
print(" ".join(get(name) or "" for name in ("MODLIBS", "LIBS", "SYSLIBS")).replace("\\", " "))
"#;

impl Development {
    fn of(python: &Interpreter) -> Option<Self> {
        let probe = Command::new(&python.path).args(["-c", DEVELOPMENT]).output().ok()?;
        let text = String::from_utf8(probe.stdout).ok()?;
        let [include, shared, archive, libraries] =
            text.lines().collect::<Vec<_>>().try_into().ok()?;
        let existing = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
        Some(Self {
            include: existing(include)?,
            shared: existing(shared),
            archive: existing(archive),
            libraries: libraries.split_whitespace().map(str::to_owned).collect(),
        })
    }
}

/// Those with headers and libraries for this machine's own C library; the others are named.
fn embeddable() -> Vec<Interpreter> {
    // Provided with a C library of their own, which no program is linked with here.
    let is_foreign = |one: &Interpreter| one.minor() >= (3, 14);
    let (found, others): (Vec<_>, Vec<_>) = supported()
        .iter()
        .cloned()
        .partition(|one| !is_foreign(one) && Development::of(one).is_some());
    for other in others {
        println!("not embedded, for want of headers or of a C library: {}", other.name);
    }
    if env::var_os("CI").is_some() {
        for minor in 8..=13 {
            let is_there = found.iter().any(|one| one.minor() == (3, minor));
            assert!(is_there, "no headers and libraries of CPython 3.{minor}");
        }
    }
    found
}

/// Compiles a program of `tests/embed`. `None` where this interpreter has not what that takes.
fn compile(
    python: &Interpreter,
    linked: Linked,
    source: &str,
    options: &[&str],
    into: &Path,
) -> Result<Option<PathBuf>, String> {
    let development = Development::of(python).ok_or("no headers")?;
    let Development { include, shared, archive, libraries } = development;
    let library = library();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary = into.join(format!("{source}-{linked:?}"));
    let mut compiler = Command::new("cc");
    compiler
        .args(["-Wall", "-Wno-unused-result", "-Werror", "-pthread", "-o"])
        .arg(&binary)
        .args(options)
        .args(["-isystem".into(), include, "-I".into(), root.join("include")])
        .arg(root.join("tests/embed").join(source).with_extension("c"));
    match linked {
        Dynamically => {
            let directory = library.parent().unwrap().display();
            compiler.arg(format!("-L{directory}")).arg("-lpysamp");
            compiler.arg(format!("-Wl,-rpath,{directory}"));
        }
        _ => {
            compiler.arg(library.with_extension("a"));
        }
    }
    match (linked, shared, archive) {
        (ToSharedPython | Dynamically, Some(shared), _) => {
            let directory = shared.parent().unwrap().display();
            compiler.arg(&shared).arg(format!("-Wl,-rpath,{directory}"));
        }
        (ToStaticPython, _, Some(archive)) => {
            // Not all archives are made for position-independent programs.
            compiler.arg(archive).args(["-no-pie", "-Wl,--export-dynamic"]);
        }
        (ToHiddenPython, _, Some(archive)) => {
            compiler.arg(archive).arg("-no-pie");
        }
        _ => return Ok(None),
    }
    compiler.args(libraries).args(["-lpthread", "-ldl", "-lutil", "-lm", "-lgcc_s"]);
    let output = compiler.output().map_err(|error| error.to_string())?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || format!("{compiler:?}: {complaints}"))?;
    Ok(Some(binary))
}

/// Runs a check on every interpreter and every way to link that it allows.
fn on_each_way(
    source: &str,
    options: &[&str],
    check: impl Fn(&Path, &Path) -> Result<(), String> + Sync,
) {
    on_all(&embeddable(), Cores::one, |python| {
        let mut ran = Vec::new();
        for linked in WAYS {
            let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
            let binary = compile(python, linked, source, options, directory.path())?;
            let Some(binary) = binary else { continue };
            check(&binary, directory.path()).map_err(|fault| format!("{linked:?}: {fault}"))?;
            ran.push(linked);
        }
        println!("{source} on {}: {ran:?}", python.name);
        ensure(!ran.is_empty(), || "no library to link with".to_owned())
    });
}

/// Runs a host in one mode; returns its pid and what it printed on stderr.
fn host(binary: &Path, arguments: &[String]) -> Result<(u32, String), String> {
    let mut command = Command::new(binary);
    command.args(arguments).env_remove("PYTHONSAMPLE").env_remove("LD_PRELOAD");
    let ended = run_to_end(&mut command)?;
    let stdout = String::from_utf8_lossy(&ended.output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&ended.output.stderr).into_owned();
    ensure(ended.output.status.success(), || {
        format!("{arguments:?}: {}, {stdout}{stderr}", ended.output.status)
    })?;
    Ok((ended.pid, stderr))
}

/// The functions that are in a collapsed profile, with a share of samples worth the name.
fn functions(path: &Path) -> Result<BTreeSet<String>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let run = Run::of("", &text)?;
    let stacks = run.collapsed.iter().filter(|stack| stack.count >= 5);
    Ok(stacks.flat_map(|stack| stack.python().into_iter().map(|it| it.name.clone())).collect())
}

fn expect(path: &Path, present: &[&str], absent: &[&str]) -> Result<(), String> {
    let found = functions(path)?;
    let is_right = present.iter().all(|name| found.contains(*name))
        && !absent.iter().any(|name| found.contains(*name));
    ensure(is_right, || {
        let text = fs::read_to_string(path).unwrap_or_default();
        format!("{}: {present:?}, not {absent:?}: {found:?}: {text}", path.display())
    })
}

fn options(path: &Path) -> String {
    format!("rate=1khz,format=collapsed,output={}", path.display())
}

#[test]
fn hosts_profile_the_python_they_embed() {
    on_each_way("host", &[], |binary, directory| {
        let [one, two] = ["one", "two"].map(|name| directory.join(name));

        let (_, stderr) = host(binary, &["statuses".into(), options(&one)])?;
        ensure(stderr.is_empty(), || format!("statuses: printed {stderr}"))?;
        ensure(!one.exists(), || "a profile without Python".to_owned())?;

        let dump = two.display().to_string();
        let (_, stderr) = host(binary, &["lives".into(), options(&one), dump])?;
        ensure(stderr.lines().count() == 1, || format!("lives: printed {stderr}"))?;
        expect(&one, &["first_life", "second_life", "third_life"], &[])?;
        expect(&two, &["first_life", "second_life"], &["third_life"])?;

        host(binary, &["middle".into(), options(&one), options(&two)])?;
        expect(&one, &["in_time"], &["too_early", "too_late", "at_exit"])?;
        expect(&two, &["at_exit"], &["too_early", "in_time", "too_late"])?;

        let forks = directory.join("forks");
        fs::create_dir(&forks).map_err(|error| error.to_string())?;
        let (parent, _) = host(binary, &["forks".into(), options(&forks.join("%p"))])?;
        let mut profiles: Vec<PathBuf> =
            forks.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        profiles.sort_by_key(|path| !path.ends_with(parent.to_string()));
        let [of_parent, of_child] = profiles.as_slice() else {
            return Err(format!("forks: left {profiles:?}"));
        };
        expect(of_parent, &["parent"], &["child"])?;
        expect(of_child, &["child"], &["parent"])
    });
}

/// With static libraries, as every way to link gives the same functions.
#[test]
fn profiles_by_the_thousand_leave_nothing() {
    on_all(&embeddable(), Cores::one, |python| {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        for linked in WAYS {
            let Some(binary) = compile(python, linked, "host", &[], directory.path())? else {
                continue;
            };
            let options = options(&directory.path().join("profile"));
            return host(&binary, &["cycles".into(), options]).map(|_| ());
        }
        Err("no library to link with".to_owned())
    });
}

/// A CPython with pysamp in it is as any other until PYTHONSAMPLE asks for a profile.
fn custom_python(binary: &Path, directory: &Path) -> Result<(), String> {
    let profile = directory.join("profile");
    type Ending = (Option<i32>, String);
    let run = |environment: &[(&str, String)], arguments: &[&str]| -> Result<Ending, String> {
        let mut command = Command::new(binary);
        command.args(arguments).env_remove("PYTHONSAMPLE").env_remove("LD_PRELOAD");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let output = run_to_end(&mut command)?.output;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    // It sleeps, so that what is in the profile does not hang on how busy the machine is.
    let staying = "import os, time\nend = time.monotonic() + 0.3\n\
                   def staying():\n while time.monotonic() < end: time.sleep(0.01)\n\
                   staying()\n";
    let leaving = format!("{staying}os._exit(3)\n");
    let sample = ("PYTHONSAMPLE", options(&profile));

    for environment in [&[][..], &[("PYTHONSAMPLE", "0".to_owned())]] {
        let silent = run(environment, &["-c", "pass"])?;
        ensure(silent == (Some(0), String::new()), || format!("not asked: {silent:?}"))?;
    }
    let (status, stderr) = run(std::slice::from_ref(&sample), &["-c", staying])?;
    ensure(status == Some(0) && stderr.lines().count() == 1, || format!("{status:?}, {stderr}"))?;
    expect(&profile, &["staying"], &[])?;

    fs::remove_file(&profile).map_err(|error| error.to_string())?;
    let (status, stderr) = run(std::slice::from_ref(&sample), &["-c", &leaving])?;
    ensure(status == Some(3), || format!("os._exit: {status:?}, {stderr}"))?;
    expect(&profile, &["staying"], &[])?;

    // Told to ignore the environment, it does, and so does a process with raised privileges.
    fs::remove_file(&profile).map_err(|error| error.to_string())?;
    for flags in [&["-E"][..], &["-I"], &["-sBE"]] {
        let silent = run(std::slice::from_ref(&sample), &[flags, &["-c", "pass"]].concat())?;
        ensure(silent == (Some(0), String::new()), || format!("{flags:?}: {silent:?}"))?;
    }
    let silent = raised(binary, &sample)?;
    ensure(silent.as_ref().is_none_or(String::is_empty), || format!("raised: {silent:?}"))?;
    ensure(!profile.exists(), || "a profile in spite of all".to_owned())?;

    // Preloaded as well: still one profile, and one line.
    let preload = ("LD_PRELOAD", library().display().to_string());
    let (status, stderr) = run(&[sample, preload], &["-c", staying])?;
    ensure(status == Some(0) && stderr.lines().count() == 1, || {
        format!("preloaded as well: {status:?}, {stderr}")
    })?;
    expect(&profile, &["staying"], &[])
}

/// Runs as a set-user-id program does. Returns its stderr; nothing where only root could do that.
fn raised(binary: &Path, (name, value): &(&str, String)) -> Result<Option<String>, String> {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("not root: raised privileges are not tried");
        return Ok(None);
    }
    let mut command = Command::new(binary);
    command.args(["-c", "pass"]).env_remove("LD_PRELOAD").env(name, value);
    // SAFETY: a system call that takes three integers.
    unsafe {
        command.pre_exec(|| match libc::setresuid(NOBODY, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let output = run_to_end(&mut command)?.output;
    ensure(output.status.success(), || format!("raised: {}", output.status))?;
    Ok(Some(String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn a_custom_python_that_mentions_pysamp_is_profiled_on_demand() {
    on_each_way("custom", &["-DMENTION"], custom_python);
}

#[test]
fn a_custom_python_that_is_only_linked_is_profiled_on_demand() {
    let kept = ["-Wl,-u,pysamp_version", "-Wl,--no-as-needed"];
    on_each_way("custom", &kept, custom_python);
}
