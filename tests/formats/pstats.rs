//! The pstats file, loaded and printed by the `pstats` of every CPython that the machine has.

use pysamp::export::pstats_marshal;
use pysamp::profile::{
    Frame, FrameId, Function, FunctionId, Location, Process, ProcessId, Profile, Sample, Stack,
    StackId, State, Thread, ThreadId,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const CHECK: &str = r#"
import io, marshal, pstats, sys

path, empty = sys.argv[1:]
HUGE = 3 << 40
main, rec, leaf = [("/app/\u00e9.py", line, name) for line, name in ((1, "main"), (7, "rec"), (4, "le\"af\\n"))]
gc = ("~", 0, "<GC>")

with open(path, "rb") as file:
    stats = marshal.load(file)
    assert file.read() == b""
assert stats == {
    main: (0, HUGE + 5, 0.0, 2.5, {}),
    rec: (2, HUGE + 2, 0.5, 1.5, {main: (HUGE + 2, 0, 0.0, 1.5), rec: (HUGE + 2, 2, 0.5, 1.5)}),
    leaf: (HUGE, HUGE, 1.0, 1.0, {rec: (HUGE, HUGE, 1.0, 1.0)}),
    gc: (3, 3, 1.0, 1.0, {main: (3, 3, 1.0, 1.0)}),
}, stats

out = io.StringIO()
profile = pstats.Stats(path, stream=out)
assert type(profile) is pstats.Stats
for key in ("calls", "cumulative", "filename", "line", "name", "nfl", "pcalls", "stdname", "time"):
    profile.sort_stats(key).print_stats(10)
profile.print_callers().print_callees()
text = out.getvalue()
assert "in 2.500 seconds" in text
assert "\u00e9.py:7(rec)" in text and "{GC}" in text and "%d/2 " % (HUGE + 2) in text, text

both = pstats.Stats(path, path, stream=out)
assert both.stats[rec][:4] == (4, 2 * HUGE + 4, 1.0, 3.0)
assert both.stats[rec][4][main] == (2 * HUGE + 4, 0, 0.0, 3.0)
both.strip_dirs().print_callers()

nothing = pstats.Stats(empty, stream=out).print_stats().print_callers()
assert list(nothing.stats) == [("~", 0, "<no samples>")]
"#;

/// Reads the file as the viewers do, which are in the folder that comes first.
const VIEW: &str = r#"
import pstats, runpy, sys

viewers, path = sys.argv[1:]
sys.path.insert(0, viewers)
from snakeviz.stats import json_stats, table_rows

stats = pstats.Stats(path)
rows = table_rows(stats)
assert sorted(float(row[1]) for row in rows) == [0.0, 0.5, 1.0, 1.0], rows
assert len(json_stats(stats)) > 2

sys.argv = ["gprof2dot", "-f", "pstats", "-n", "0", "-e", "0", path]
runpy.run_module("gprof2dot", run_name="__main__")
"#;

const HUGE: u64 = 3 << 40;

fn profile() -> Profile {
    let functions =
        [("/app/é.py", "main"), ("/app/é.py", "rec"), ("/app/é.py", "le\"af\n"), ("~", "<GC>")]
            .map(|(file, name)| Function { file: file.into(), name: name.into(), first_line: 1 });
    let frames = [1, 7, 4, 0].iter().zip(0..).map(|(&line, function)| Frame {
        function: FunctionId(function),
        location: Location { line, ..Location::default() },
        instruction: 0,
        opcode: None,
    });
    let stacks = [(None, 0), (Some(0), 1), (Some(1), 1), (Some(2), 2), (Some(0), 3)]
        .map(|(parent, frame)| Stack { parent: parent.map(StackId), frame: FrameId(frame) });
    let samples = [(3, HUGE, 1_000_000_000), (2, 2, 500_000_000), (4, 3, 1_000_000_000)].map(
        |(stack, count, weight_ns)| Sample {
            thread: ThreadId(0),
            stack: StackId(stack),
            state: State::default(),
            count,
            weight_ns,
            cpu_ns: 0,
        },
    );
    let process = ProcessId(0);
    let thread = Thread { process, tid: 1, name: "".into(), is_main: true, interpreter: 0 };
    Profile {
        functions: functions.into(),
        frames: frames.collect(),
        stacks: stacks.into(),
        processes: vec![Process::default()],
        threads: vec![thread],
        samples: samples.into(),
        ..Profile::default()
    }
}

/// Interpreters by version: pyenv's, and those that were fetched for the tests.
fn interpreters() -> BTreeMap<String, PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let folders = [home.join(".pyenv/versions"), home.join(".cache/pysamp/interpreters")];
    let installed = folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten();
    let pythons = installed.flatten().map(|entry| entry.path().join("bin/python3"));
    pythons.filter_map(|python| Some((version(&python)?, python))).collect()
}

/// The version of an interpreter; `None` where it is none, or one that is not supported.
fn version(python: &Path) -> Option<String> {
    let code = "import sys; assert sys.version_info >= (3, 8); print(sys.version.split()[0], sys.abiflags)";
    let output = Command::new(python).args(["-c", code]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[test]
fn every_python_loads_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, profile: &Profile| {
        let path = folder.path().join(name);
        pstats_marshal::write(profile, &mut std::fs::File::create(&path).unwrap()).unwrap();
        path
    };
    let path = write("p.pstats", &profile());
    let empty = write("empty.pstats", &Profile::default());

    let interpreters = interpreters();
    println!("pstats checked with CPython {:?}", interpreters.keys());
    assert!(!interpreters.is_empty(), "no CPython was found");
    for (version, python) in interpreters {
        let output = Command::new(&python)
            .args(["-X", "utf8", "-c", CHECK])
            .args([&path, &empty])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "CPython {version}: {error}");
    }
}

/// A folder with the viewers as an interpreter of that version can run them. It is kept.
fn viewers(version: &str, python: &Path) -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let kept = home.join(".cache/pysamp/viewers").join(version.trim());
    if !kept.is_dir() {
        let parent = kept.parent().unwrap();
        std::fs::create_dir_all(parent).unwrap();
        let making = tempfile::tempdir_in(parent).unwrap();
        let install =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"];
        let mut command = Command::new(python);
        command.args(install).arg(making.path()).args(["snakeviz", "gprof2dot"]);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the viewers for {version} cannot be installed: {error}");
        // Another test may have been faster.
        let _ = std::fs::rename(making.keep(), &kept);
    }
    kept
}

#[test]
fn viewers_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.pstats");
    pstats_marshal::write(&profile(), &mut std::fs::File::create(&path).unwrap()).unwrap();
    let mut interpreters = interpreters();
    interpreters.retain(|version, _| ["3.8.", "3.15."].iter().any(|own| version.starts_with(own)));
    assert_eq!(interpreters.len(), 2, "{:?}", interpreters.keys());
    std::thread::scope(|scope| {
        for (version, python) in interpreters {
            let path = &path;
            scope.spawn(move || {
                let mut command = Command::new(&python);
                command.args(["-X", "utf8", "-c", VIEW]).arg(viewers(&version, &python)).arg(path);
                let output = command.output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "CPython {version}: {error}");
                let graph = String::from_utf8(output.stdout).unwrap();
                assert!(graph.starts_with("digraph {"), "{graph}");
                for name in ["main", "rec", "GC", "100.00%"] {
                    assert!(graph.contains(name), "CPython {version}: no {name} in {graph}");
                }
            });
        }
    });
}
