//! What `perf` shows of Python functions, and what trampolines leave alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::exactness::{sound, spelled};
use crate::support::{
    Cores, Ended, Interpreter, command, ensure, library, on_all, on_each, profile, program,
    run_to_end, supported,
};

/// What is left for profilers by the process ids of those who left it; gone when this is dropped.
struct Leavings(Vec<u32>);

impl Leavings {
    fn map(pid: u32) -> String {
        format!("/tmp/perf-{pid}.map")
    }

    fn dump(pid: u32) -> String {
        format!("/tmp/jit-{pid}.dump")
    }
}

impl Drop for Leavings {
    fn drop(&mut self) {
        for &pid in &self.0 {
            let _ = fs::remove_file(Self::map(pid));
            let _ = fs::remove_file(Self::dump(pid));
            // What perf has made of the dump.
            for entry in fs::read_dir("/tmp").into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&format!("jitted-{pid}-")) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }
}

fn stdout(ended: &Ended) -> String {
    String::from_utf8_lossy(&ended.output.stdout).into_owned()
}

fn stderr(ended: &Ended) -> String {
    String::from_utf8_lossy(&ended.output.stderr).into_owned()
}

fn succeeded(ended: Ended, what: &str) -> Result<Ended, String> {
    let status = ended.output.status;
    ensure(status.success(), || format!("{what}: {status}: {}{}", stdout(&ended), stderr(&ended)))?;
    Ok(ended)
}

/// Functions of a sample, the innermost first.
type Chain = Vec<String>;

/// Records a program by perf, with the given backend of trampolines, and returns its samples in the
/// order of time.
fn recorded(
    python: &Interpreter,
    script: &str,
    arguments: &[&str],
    [backend, chains]: [&str; 2],
) -> Result<Vec<Chain>, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let [data, injected] = ["data", "injected"].map(|name| directory.path().join(name));
    let mut record = Command::new("perf");
    record.args(["record", "-q", "-k", "1", "-F", "499", "-e", "cpu-clock:u"]);
    record.args(["--call-graph", chains, "-o"]).arg(&data);
    let output = directory.path().join("profile").display().to_string();
    // A sample a second is as few as make no difference.
    let options = format!("rate=1hz,collapsed,perf={backend},output={output}");
    // perf is preloaded into as well, where pysamp does nothing. With `env` in between perf 6.1 would
    // take the lower of the two addresses at which that and Python had the C library, and often not
    // unwind out of it.
    record.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", options);
    record.arg("--").arg(&python.path).arg("-B").arg(program(script)).args(arguments);
    let ended = succeeded(run_to_end(&mut record)?, "perf record")?;
    let is_own = |line: &&str| line.starts_with("pysamp: ") && !line.contains("wrote");
    if let Some(line) = stderr(&ended).lines().find(is_own) {
        return Err(line.to_owned());
    }
    let mut events = Command::new("perf");
    events.args(["script", "-F", "pid", "-i"]).arg(&data);
    let pids = stdout(&succeeded(run_to_end(&mut events)?, "perf script")?);
    let pid = pids.split_whitespace().find_map(|pid| pid.parse().ok());
    let _leavings = Leavings(vec![pid.ok_or("no samples")?]);
    let mut shown = data;
    if backend == "jitdump" {
        let mut inject = Command::new("perf");
        inject.args(["inject", "--jit", "-i"]).arg(shown).arg("-o").arg(&injected);
        succeeded(run_to_end(&mut inject)?, "perf inject")?;
        shown = injected;
    }
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(shown);
    let text = stdout(&succeeded(run_to_end(&mut script)?, "perf script")?);
    let name = |line: &str| line.trim().split_once(' ').map(|(_, name)| name.to_owned());
    let chain = |sample: &str| {
        // The first line is the name of the thread.
        let (thread, functions) = sample.trim_start_matches('\n').split_once('\n')?;
        let is_programs = !thread.starts_with("pysamp");
        is_programs.then(|| functions.lines().filter_map(name).collect())
    };
    Ok(text.split("\n\n").filter_map(chain).collect())
}

/// The Python functions among them.
fn python_names(chain: &Chain) -> Vec<&str> {
    chain.iter().filter_map(|name| name.strip_prefix("py::")?.split(':').next()).collect()
}

/// How many of the program's samples have to satisfy a condition, from the first to the last that does:
/// before and after that the program starts and ends.
const EXACT: f64 = 0.95;

fn are_exact(
    python: &Interpreter,
    chains: &[Chain],
    is_right: impl Fn(&Chain) -> bool,
) -> Result<(), String> {
    const FEWEST: usize = 50;
    let first = chains.iter().position(&is_right);
    let last = chains.iter().rposition(&is_right);
    let (Some(first), Some(last)) = (first, last) else {
        return Err(format!("none of {}: {:?}", chains.len(), chains.get(chains.len() / 2)));
    };
    let within = &chains[first..=last];
    ensure(within.len() >= FEWEST, || format!("only {} samples", within.len()))?;
    let wrong: Vec<_> = within.iter().filter(|chain| !is_right(chain)).collect();
    let share = 1.0 - wrong.len() as f64 / within.len() as f64;
    println!("{}: {share:.3} of {} samples are exact", python.name, within.len());
    ensure(share >= EXACT, || format!("only {share} are exact: {wrong:?}"))
}

const NEST: &str = "nested.py";

/// Whether all of nested.py's functions are there, in their order, with C functions in between.
fn is_nested(chain: &Chain) -> bool {
    let names = python_names(chain);
    let [innermost, outer] = [&names[..names.len().min(3)], names.get(3..).unwrap_or(&[])];
    let at = |name: &str| chain.iter().position(|it| it.starts_with(&format!("py::{name}:")));
    let is_apart = |below: &str, above: &str| match (at(below), at(above)) {
        (Some(below), Some(above)) => above > below + 1,
        _ => false,
    };
    innermost == ["bottom", "middle", "top"]
        && ["main", "<module>"].starts_with(outer)
        && is_apart("bottom", "middle")
        && is_apart("middle", "top")
}

/// perf, or a reason why nothing is tried; where everything has to be tried, none.
fn has_perf() -> bool {
    let is_there = Command::new("perf").arg("--version").output().is_ok();
    assert!(is_there || std::env::var_os("CI").is_none(), "tests/provision.sh provides perf");
    if !is_there {
        println!("not tried: there is no perf");
    }
    is_there
}

#[test]
fn a_dump_unwinds_where_there_are_no_frame_pointers() {
    if !has_perf() {
        return;
    }
    on_each(Cores::one, |python| {
        let chains = recorded(python, NEST, &["0.7"], ["jitdump", "dwarf,8192"])?;
        are_exact(python, &chains, is_nested)
    });
}

#[test]
fn a_map_names_what_runs() {
    if !has_perf() {
        return;
    }
    on_each(Cores::one, |python| {
        // Without information on how stubs are unwound, the chain ends with the first of them.
        let chains = recorded(python, NEST, &["0.5"], ["map", "dwarf,8192"])?;
        let is_named = |chain: &Chain| python_names(chain).first() == Some(&"bottom");
        are_exact(python, &chains, is_named)
    });
}

#[test]
fn a_map_and_frame_pointers_make_whole_chains() {
    if !has_perf() {
        return;
    }
    const PROBE: &str = "import sysconfig; get = sysconfig.get_config_var\n\
                         flags = (get('CFLAGS') or '') + (get('PY_CORE_CFLAGS') or '')\n\
                         print('-fno-omit-frame-pointer' in flags)";
    let has_frame_pointers = |python: &&Interpreter| {
        let probe = Command::new(&python.path).args(["-c", PROBE]).output();
        probe.is_ok_and(|output| output.stdout.starts_with(b"True"))
    };
    let built_so: Vec<Interpreter> =
        supported().iter().filter(has_frame_pointers).cloned().collect();
    on_all(&built_so, Cores::one, |python| {
        let chains = recorded(python, NEST, &["0.7"], ["map", "fp"])?;
        are_exact(python, &chains, is_nested)
    });
}

/// Functions that die leave their addresses to others; what runs must never have another one's name.
#[test]
fn code_that_was_freed_leaves_its_name_to_nobody() {
    if !has_perf() {
        return;
    }
    on_each(Cores::one, |python| {
        let chains =
            recorded(python, "trampolines.py", &["freed", "2500"], ["jitdump", "dwarf,8192"])?;
        let kind = |name: &str| name.split('_').nth(1).map(str::to_owned);
        let (mut right, mut wrong) = (0, Vec::new());
        for chain in &chains {
            let names = python_names(chain);
            let Some(at) = names.iter().position(|name| name.starts_with("inner_")) else {
                continue;
            };
            let caller = names.get(at + 1).copied().unwrap_or_default();
            match caller.starts_with("outer_") && kind(caller) == kind(names[at]) {
                true => right += 1,
                false => wrong.push(names),
            }
        }
        println!("{}: {right} pairs are right, {} wrong", python.name, wrong.len());
        ensure(wrong.is_empty() && right >= 20, || format!("{right} right, wrong {wrong:?}"))
    });
}

/// Runs a part of trampolines.py, which checks itself.
fn switched(python: &Interpreter, arguments: &[&str]) -> Result<(), String> {
    let mut command = command(python, "trampolines.py", arguments);
    command.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", "0");
    let ended = run_to_end(&mut command)?;
    let _leavings = Leavings(vec![ended.pid]);
    let ended = succeeded(ended, arguments[0])?;
    ensure(ended.output.stderr.is_empty(), || stderr(&ended))
}

#[test]
fn the_c_functions_switch_them_on_and_off() {
    on_each(Cores::one, |python| switched(python, &["statuses"]));
}

#[test]
fn code_objects_by_the_ten_thousand_are_survived() {
    on_each(Cores::one, |python| switched(python, &["churn", &count(20_000, 100_000)]));
}

#[test]
fn they_are_switched_a_thousand_times_while_threads_call() {
    on_each(Cores::one, |python| switched(python, &["toggle", "1000"]));
}

#[test]
fn forked_children_have_whole_maps() {
    on_each(Cores::one, |python| switched(python, &["forks", &count(10, 100)]));
}

fn count(short: u32, long: u32) -> String {
    if std::env::var_os("PYSAMP_LONG").is_some() { long } else { short }.to_string()
}

#[test]
fn sampling_goes_on_unchanged() {
    const SECONDS: &str = "1";
    on_each(Cores::all, |python| {
        let options = "rate=5khz,perf=map";
        let run = profile(python, "spelled_tree.py", &["--seconds", SECONDS], options)?;
        sound(&run, 5e3)?;
        let found = spelled(python, &run.text)?;
        println!("{}: {} impossible of {}", python.name, found.impossible, found.samples);
        ensure(found.impossible == 0, || found.examples)
    });
}

/// Runs a command of the shell's that becomes the interpreter, which keeps its process id.
fn after(python: &Interpreter, before: &str, flags: &[&str]) -> Result<(Ended, Leavings), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{before}\nexec env LD_PRELOAD=\"$LIBRARY\" \"$@\"")).arg("sh");
    shell.arg(&python.path).args(flags).arg("-B").arg(program(NEST)).arg("0.3");
    shell.env("LIBRARY", library()).env_remove("LD_PRELOAD");
    let output = directory.path().join("profile").display().to_string();
    shell.env("PYTHONSAMPLE", format!("collapsed,perf=map,output={output}"));
    let ended = run_to_end(&mut shell)?;
    let leavings = Leavings(vec![ended.pid]);
    Ok((succeeded(ended, before)?, leavings))
}

#[test]
fn a_link_in_the_way_is_not_followed() {
    on_each(Cores::one, |python| {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let target = directory.path().join("target");
        for link in ["ln -s", "ln"] {
            fs::write(&target, "text").map_err(|error| error.to_string())?;
            let before = format!("{link} {} /tmp/perf-$$.map", target.display());
            let (ended, _leavings) = after(python, &before, &[])?;
            let said = stderr(&ended);
            ensure(said.contains("pysamp: perf: the file for perf cannot be written"), || said)?;
            let text = fs::read_to_string(&target).map_err(|error| error.to_string())?;
            ensure(text == "text", || format!("{link}: {text}"))?;
        }
        Ok(())
    });
}

#[test]
fn cpythons_own_trampolines_are_left_alone() {
    let with_own: Vec<Interpreter> =
        supported().iter().filter(|python| python.minor() >= (3, 12)).cloned().collect();
    on_all(&with_own, Cores::one, |python| {
        let (ended, leavings) = after(python, ":", &["-X", "perf"])?;
        let said = stderr(&ended);
        ensure(said.contains("pysamp: perf: Python's frames are evaluated by another"), || said)?;
        let map = Leavings::map(leavings.0[0]);
        ensure(Path::new(&map).exists(), || "no map by CPython".to_owned())
    });
}
