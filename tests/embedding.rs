//! Programs that have pysamp linked in: hosts that embed Python, and CPythons of one's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Each topic uses its part of what is shared.
#![allow(dead_code, unused_imports, unsafe_code)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
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
    /// Where its C library is, if that is not the machine's.
    own_libc: Option<PathBuf>,
}

const DEVELOPMENT: &str = r#"
import os, sys, sysconfig
get = sysconfig.get_config_var
paths = [sysconfig.get_paths()["include"], get("LIBDIR") or "", get("LIBPL") or ""]
shared = os.path.join(paths[1], "libpython" + get("LDVERSION") + ".so")
archive = os.path.join(paths[2], "libpython" + get("LDVERSION") + ".a")
home = os.path.dirname(os.path.dirname(sys.executable))
own_libc = os.path.join(home, "glibc")
if os.path.exists(own_libc):
    triplet = os.path.join(home, "lib", get("MULTIARCH"))
    shared = os.path.join(triplet, os.path.basename(shared))
    archive = os.path.join(triplet, os.path.basename(archive))
print(paths[0] if os.path.exists(os.path.join(paths[0], "Python.h")) else "")
print(shared if os.path.exists(shared) else "")
print(archive if os.path.exists(archive) else "")
print(" ".join(get(name) or "" for name in ("MODLIBS", "LIBS", "SYSLIBS")).replace("\\", " "))
print(own_libc if os.path.exists(own_libc) else "")
"#;

impl Development {
    fn of(python: &Interpreter) -> Option<Self> {
        let probe = Command::new(&python.path).args(["-c", DEVELOPMENT]).output().ok()?;
        let text = String::from_utf8(probe.stdout).ok()?;
        let [include, shared, archive, libraries, own_libc] =
            text.lines().collect::<Vec<_>>().try_into().ok()?;
        let existing = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
        Some(Self {
            include: existing(include)?,
            shared: existing(shared),
            archive: existing(archive),
            libraries: libraries.split_whitespace().map(str::to_owned).collect(),
            own_libc: existing(own_libc),
        })
    }

    /// What a program is linked with besides Python.
    fn link_arguments(&self) -> Result<Vec<OsString>, String> {
        let mut wanted = self.libraries.clone();
        wanted.extend(["-lpthread", "-ldl", "-lutil", "-lm", "-lgcc_s"].map(str::to_owned));
        let Some(directory) = &self.own_libc else {
            return Ok(wanted.into_iter().map(OsString::from).collect());
        };
        wanted.push("-lc".to_owned());
        let entries = directory.read_dir().map_err(|error| error.to_string())?;
        let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let file = |start: &str| {
            let is_it = |path: &&PathBuf| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
            };
            files.iter().filter(is_it).min_by_key(|path| path.as_os_str().len())
        };
        let loader = file("ld-linux").ok_or("no loader beside the C library")?;
        let mut arguments: Vec<OsString> = wanted
            .iter()
            .filter_map(|library| file(&format!("lib{}.so.", library.strip_prefix("-l")?)))
            .chain([loader])
            .map(OsString::from)
            .collect();
        arguments.push(format!("-Wl,--dynamic-linker={}", loader.display()).into());
        // Unlike a run path, this one also holds for what the libraries themselves need.
        arguments.push("-Wl,--disable-new-dtags".into());
        arguments.push(format!("-Wl,-rpath,{}", directory.display()).into());
        // Debian's archives lack the objects of some hash functions that their modules call.
        arguments.push("-Wl,--warn-unresolved-symbols".into());
        arguments.push("-Wl,-z,lazy".into());
        Ok(arguments)
    }
}

/// Where an interpreter that was moved finds its standard library.
fn home(python: &Interpreter) -> Option<PathBuf> {
    let home = python.path.parent()?.parent()?;
    home.join("glibc").exists().then(|| home.to_owned())
}

/// Those with headers and libraries; the others are named.
fn embeddable() -> Vec<Interpreter> {
    let (found, others): (Vec<_>, Vec<_>) =
        supported().iter().cloned().partition(|one| Development::of(one).is_some());
    for other in others {
        println!("not embedded, for want of headers: {}", other.name);
    }
    if env::var_os("CI").is_some() {
        for minor in 8..=15 {
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
    let link_arguments = development.link_arguments()?;
    let Development { include, shared, archive, .. } = development;
    let library = library();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A Python that was moved finds its home in the directory above its own.
    let folder = into.join("bin");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let binary = folder.join(format!("{source}-{linked:?}"));
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
    build(compiler.args(link_arguments))?;
    if let Some(home) = home(python) {
        let text = format!("home = {}\n", home.join("bin").display());
        fs::write(into.join("pyvenv.cfg"), text).map_err(|error| error.to_string())?;
    }
    Ok(Some(binary))
}

fn build(compiler: &mut Command) -> Result<(), String> {
    let output = compiler.output().map_err(|error| error.to_string())?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let is_known = |line: &str| !line.contains("undefined") || line.contains("_Py_LibHacl_");
    ensure(output.status.success() && complaints.lines().all(is_known), || {
        format!("{compiler:?}: {complaints}")
    })
}

/// Runs a check on every interpreter and every way to link that it allows.
fn on_each_way(
    source: &str,
    options: &[&str],
    check: impl Fn(&Interpreter, &Path, &Path) -> Result<(), String> + Sync,
) {
    on_all(&embeddable(), Cores::one, |python| {
        let mut ran = Vec::new();
        for linked in WAYS {
            let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
            let binary = compile(python, linked, source, options, directory.path())?;
            let Some(binary) = binary else { continue };
            check(python, &binary, directory.path())
                .map_err(|fault| format!("{linked:?}: {fault}"))?;
            ran.push(linked);
        }
        println!("{source} on {}: {ran:?}", python.name);
        ensure(!ran.is_empty(), || "no library to link with".to_owned())
    });
}

/// Runs a host in one mode; returns its pid and what it printed on stderr.
fn host(
    python: &Interpreter,
    binary: &Path,
    arguments: &[String],
) -> Result<(u32, String), String> {
    let mut command = Command::new(binary);
    command.args(arguments).env_remove("PYTHONSAMPLE").env_remove("LD_PRELOAD");
    command.envs(home(python).map(|home| ("PYTHONHOME", home)));
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
    on_each_way("host", &[], |python, binary, directory| {
        let [one, two] = ["one", "two"].map(|name| directory.join(name));

        let (_, stderr) = host(python, binary, &["statuses".into(), options(&one)])?;
        ensure(stderr.is_empty(), || format!("statuses: printed {stderr}"))?;
        ensure(!one.exists(), || "a profile without Python".to_owned())?;

        let dump = two.display().to_string();
        let (_, stderr) = host(python, binary, &["lives".into(), options(&one), dump])?;
        ensure(stderr.lines().count() == 1, || format!("lives: printed {stderr}"))?;
        expect(&one, &["first_life", "second_life", "third_life"], &[])?;
        expect(&two, &["first_life", "second_life"], &["third_life"])?;

        host(python, binary, &["middle".into(), options(&one), options(&two)])?;
        expect(&one, &["in_time"], &["too_early", "too_late", "at_exit"])?;
        expect(&two, &["at_exit"], &["too_early", "in_time", "too_late"])?;

        let forks = directory.join("forks");
        fs::create_dir(&forks).map_err(|error| error.to_string())?;
        let (parent, _) = host(python, binary, &["forks".into(), options(&forks.join("%p"))])?;
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
            return host(python, &binary, &["cycles".into(), options]).map(|_| ());
        }
        Err("no library to link with".to_owned())
    });
}

/// A CPython with pysamp in it is as any other until PYTHONSAMPLE asks for a profile.
fn custom_python(python: &Interpreter, binary: &Path, directory: &Path) -> Result<(), String> {
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
    // What is preloaded comes first, and cannot know a Python that neither exports its version nor
    // has it in its own memory. It says so, and what is linked in may still do its work.
    let is_hidden = binary.to_string_lossy().contains("ToHiddenPython");
    if is_hidden && stderr.contains("this Python does not tell its version") {
        return ensure(status == Some(0) && python.minor() < (3, 13), || stderr);
    }
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

/// The stacks of a profile that have a share of its samples worth the name, and that share.
fn shares(path: &Path) -> Result<BTreeMap<String, f64>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let run = Run::of("", &text)?;
    let all = run.collapsed.iter().map(|stack| stack.count).sum::<u64>() as f64;
    let mut shares = BTreeMap::new();
    for stack in &run.collapsed {
        let frames = stack.python().into_iter().map(|it| format!("{}:{}", it.name, it.line));
        *shares.entry(frames.collect::<Vec<_>>().join(";")).or_default() +=
            stack.count as f64 / all;
    }
    shares.retain(|_, share| *share >= 0.1);
    Ok(shares)
}

/// Linked in, pysamp sees what it sees when it is preloaded.
fn as_preloaded(python: &Interpreter, binary: &Path, directory: &Path) -> Result<(), String> {
    const PROGRAM: &str = "import time\n\
        def inner(seconds):\n\
        \x20   end = time.monotonic() + seconds\n\
        \x20   while time.monotonic() < end:\n\
        \x20       time.sleep(0.01)\n\
        def long(): inner(0.6)\n\
        def short(): inner(0.3)\n\
        long()\n\
        short()\n";
    const MOST_APART: f64 = 0.1;
    let app = directory.join("app.py");
    fs::write(&app, PROGRAM).map_err(|error| error.to_string())?;
    let profile_of = |executable: &Path, preload: Option<PathBuf>| {
        let profile = directory.join("compared");
        let mut command = Command::new(executable);
        command.arg(&app).env("PYTHONSAMPLE", options(&profile)).env_remove("LD_PRELOAD");
        command.envs(preload.map(|library| ("LD_PRELOAD", library)));
        let output = run_to_end(&mut command)?.output;
        ensure(output.status.success(), || format!("{}: {output:?}", executable.display()))?;
        shares(&profile)
    };
    let linked = profile_of(binary, None)?;
    let preloaded = profile_of(&python.path, Some(library()))?;
    let is_close = |(stack, share): (&String, &f64)| {
        preloaded.get(stack).is_some_and(|other| (share - other).abs() <= MOST_APART)
    };
    let is_same = linked.len() == preloaded.len() && linked.iter().all(is_close);
    ensure(is_same && linked.len() == 2, || format!("linked {linked:?}, preloaded {preloaded:?}"))
}

/// Optimised as a whole, without what nothing uses, and stripped of its symbols.
#[test]
fn a_custom_python_that_mentions_pysamp_is_profiled_on_demand() {
    let lean = ["-DMENTION", "-O2", "-flto", "-ffunction-sections", "-Wl,--gc-sections", "-s"];
    on_each_way("custom", &lean, |python, binary, directory| {
        custom_python(python, binary, directory)?;
        as_preloaded(python, binary, directory)
    });
}

#[test]
fn a_custom_python_that_is_only_linked_is_profiled_on_demand() {
    let kept = ["-Wl,-u,pysamp_version", "-Wl,--no-as-needed"];
    on_each_way("custom", &kept, custom_python);
}

/// A program that reads variables of its own decides alone, unless pysamp is preloaded as well.
#[test]
fn a_host_of_pysamp_reads_the_environment_itself() {
    let python = &embeddable()[0];
    let mut ran = Vec::new();
    for linked in WAYS {
        let directory = tempfile::tempdir().unwrap();
        let binary = compile(python, linked, "custom", &["-DHOSTED"], directory.path()).unwrap();
        let Some(binary) = binary else { continue };
        let run = |variables: &[(&str, &str)]| {
            let mut command = Command::new(&binary);
            command.args(["-c", "import time; time.sleep(0.3)"]).current_dir(directory.path());
            command.env_remove("PYTHONSAMPLE").env_remove("LD_PRELOAD");
            let output = run_to_end(command.envs(variables.iter().copied())).unwrap().output;
            assert!(output.status.success(), "{linked:?}: {output:?}");
            let left = |name: &str| fs::remove_file(directory.path().join(name)).is_ok();
            let stderr = String::from_utf8(output.stderr).unwrap();
            (left("asked"), left("not-asked"), stderr)
        };
        let asked = ("CUSTOM_SAMPLE", "collapsed,output=asked");
        let not_asked = ("PYTHONSAMPLE", "collapsed,output=not-asked");
        let nothing = (false, false, String::new());
        assert_eq!(run(&[not_asked]), nothing, "{linked:?}");
        for off in ["", "0", "off"] {
            assert_eq!(run(&[not_asked, ("CUSTOM_SAMPLE", off)]), nothing, "{linked:?}");
        }
        let (own, other, stderr) = run(&[asked, not_asked]);
        assert!(own && !other && stderr.lines().count() == 1, "{linked:?}: {stderr}");
        let (own, other, stderr) = run(&[("CUSTOM_SAMPLE", "outptu=x")]);
        let is_told = stderr.starts_with("pysamp: sampler options: there is no option 'outptu'");
        assert!(!own && !other && is_told && stderr.lines().count() == 1, "{linked:?}: {stderr}");
        let preload = library().display().to_string();
        let (own, other, stderr) = run(&[asked, not_asked, ("LD_PRELOAD", &preload)]);
        // Linked dynamically, that is the same library.
        assert!(own != other && stderr.lines().count() == 1, "preloaded, {linked:?}: {stderr}");
        ran.push(linked);
    }
    println!("hosted on {}: {ran:?}", python.name);
    assert!(!ran.is_empty());
}

/// With an archive of Python's where there is one: that takes more from the program that links it.
#[test]
fn a_rust_program_profiles_the_python_it_embeds() {
    on_all(&embeddable(), Cores::one, |python| {
        let development = Development::of(python).ok_or("no headers")?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let binary = directory.path().join("host");
        let library = library();
        let target = library.parent().ok_or("no directory")?;
        let mut compiler = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        compiler.args([
            "--edition",
            "2024",
            "-C",
            "relocation-model=static",
            "-C",
            "strip=symbols",
        ]);
        compiler.arg("-o").arg(&binary).arg("--extern");
        compiler.arg(format!("pysamp={}", target.join("libpysamp.rlib").display()));
        compiler.arg("-L").arg(format!("dependency={}", target.join("deps").display()));
        compiler.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/embed/host.rs"));
        let python_library = match (&development.archive, &development.shared) {
            (Some(archive), _) => archive.into(),
            (None, Some(shared)) => {
                let directory = shared.parent().ok_or("no directory")?.display();
                compiler.arg(format!("-Clink-arg=-Wl,-rpath,{directory}"));
                shared.into()
            }
            (None, None) => return Err("no library to link with".to_owned()),
        };
        for argument in [python_library].into_iter().chain(development.link_arguments()?) {
            let mut link = OsString::from("-Clink-arg=");
            link.push(argument);
            compiler.arg(link);
        }
        build(&mut compiler)?;
        let code = "import time\nend = time.monotonic() + 0.3\n\
                    def staying():\n while time.monotonic() < end: time.sleep(0.01)\n\
                    staying()\n";
        let profile = directory.path().join("profile");
        host(python, &binary, &[options(&profile), code.to_owned()])?;
        expect(&profile, &["staying"], &[])
    });
}

/// It is preloaded into programs that have no Python. What it has is found at run time.
#[test]
fn the_shared_library_wants_nothing_of_python() {
    let output = Command::new("nm").args(["-D", "--undefined-only"]).arg(library()).output();
    let output = output.unwrap();
    let symbols = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && symbols.contains("dlsym"), "{symbols}");
    let of_python = |line: &&str| line.contains(" Py") || line.contains(" _Py");
    assert_eq!(symbols.lines().find(of_python), None);
}
