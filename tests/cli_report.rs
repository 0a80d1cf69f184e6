//! `pysamp report` as a user meets it: formats, several recordings, errors.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use pysamp::layout::tables;
use pysamp::profile::Meta;
use pysamp::reader::codes::{CodeId, CodeTable, Located};
use pysamp::reader::threads::ThreadState;
use pysamp::recorder::Recorder;
use pysamp::sampler::Sink;
use pysamp::sampler::activity::{Spent, State};
use tempfile::TempDir;

const PYSAMP: &str = env!("CARGO_BIN_EXE_pysamp");
const LINE: &str = "tid:5;<unknown> 3\n";

/// Leaves what a process would that was killed after three samples.
fn record(path: &Path, pid: u32) {
    let codes = CodeTable::new(tables::V3_12, 0);
    let mut recorder = Recorder::new(0);
    let thread = recorder.thread(&ThreadState { at: 0x1000, ident: 0, tid: 5, interpreter: 0 });
    let state = State::ON_CPU;
    for at_ns in [1_000_000, 2_000_000, 3_000_000] {
        let spent = Spent { at_ns, state, wall_ns: 1_000_000, cpu_ns: 500_000 };
        recorder.sample(thread, &[Located { code: CodeId(0), index: 1 }], 0, false, spent);
    }
    let meta = Meta { pid, program: "app.py".into(), ..Meta::default() };
    recorder.begin_spool(path, &meta).unwrap();
    recorder.update_spool(&codes, 3_000_000);
}

/// A directory with the recordings `a.pysamp` and `b.pysamp`.
fn recordings() -> TempDir {
    let directory = TempDir::new().unwrap();
    record(&directory.path().join("a.pysamp"), 42);
    record(&directory.path().join("b.pysamp"), 43);
    directory
}

/// Exit code, stdout and stderr.
fn report(directory: &TempDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(PYSAMP);
    let output = command.arg("report").args(arguments).current_dir(directory).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn read(directory: &TempDir, name: &str) -> String {
    fs::read_to_string(directory.path().join(name)).unwrap_or_default()
}

#[test]
fn formats_go_to_stdout_or_a_file() {
    let directory = recordings();
    for table in [&["a.pysamp"][..], &["a.pysamp", "--pstats", "-o", "-"]] {
        let (code, stdout, stderr) = report(&directory, table);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.starts_with("Profile Stats:") && stdout.contains("3/3"), "{stdout}");
    }
    // All of them were on a processor, none had the GIL.
    for (mode, shown) in [("wall", LINE), ("cpu", LINE), ("gil", "")] {
        let arguments = ["--mode", mode, "--collapsed", "-o", "-", "a.pysamp"];
        assert_eq!(report(&directory, &arguments), (Some(0), shown.to_owned(), String::new()));
    }
    let short = report(&directory, &["a.pysamp", "--no-summary", "-l", "1", "--sort", "name"]);
    assert!(short.1.contains("\nLegend:") && !short.1.contains("Hot spots"), "{}", short.1);
    let stdout = report(&directory, &["--collapsed", "-o", "-", "a.pysamp"]);
    assert_eq!(stdout, (Some(0), LINE.to_owned(), String::new()));
    let (code, stdout, stderr) = report(&directory, &["--collapsed", "-o", "%n_%p", "a.pysamp"]);
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert!(stderr.starts_with("pysamp: wrote app.py_42: 3 samples"), "{stderr}");
    assert_eq!(read(&directory, "app.py_42"), LINE);
}

#[test]
fn several_formats_are_a_file_each() {
    let directory = recordings();
    let formats = ["--collapsed", "--flamegraph"];
    let (code, stdout, stderr) = report(&directory, &[&formats[..], &["a.pysamp"]].concat());
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert!(stderr.starts_with("pysamp: wrote pysamp_42.txt, pysamp_42.html: 3 s"), "{stderr}");
    assert_eq!(read(&directory, "pysamp_42.txt"), LINE);
    assert!(read(&directory, "pysamp_42.html").contains("<html"));

    let all = ["--pstats", "--table", "--collapsed", "-o", "p_%p.html", "a.pysamp"];
    let (code, stdout, stderr) = report(&directory, &all);
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    let names = "p_42.table.txt, p_42.pstats, p_42.collapsed.txt";
    assert!(stderr.starts_with(&format!("pysamp: wrote {names}: 3 samples")), "{stderr}");
    assert_eq!(read(&directory, "p_42.collapsed.txt"), LINE);
    assert!(read(&directory, "p_42.table.txt").starts_with("Profile Stats:"));

    let (code, stdout, stderr) = report(&directory, &["--pstats", "--svg", "b.pysamp"]);
    assert!(code == Some(0) && stdout.starts_with("Profile Stats:"), "{stdout}");
    assert!(stderr.starts_with("pysamp: wrote pysamp_43.svg: 3 samples"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

/// As `pysamp run` does it: what is named is replaced, what is not named is left alone.
#[test]
fn files_that_are_there() {
    let directory = recordings();
    for name in ["named", "pysamp_42.html"] {
        fs::write(directory.path().join(name), "before").unwrap();
    }
    assert_eq!(report(&directory, &["--collapsed", "-o", "named", "a.pysamp"]).0, Some(0));
    assert_eq!(read(&directory, "named"), LINE);
    let (code, _, stderr) = report(&directory, &["--flamegraph", "a.pysamp"]);
    assert_eq!(code, Some(0));
    assert!(stderr.starts_with("pysamp: wrote pysamp_42-2.html: "), "{stderr}");
    assert_eq!(read(&directory, "pysamp_42.html"), "before");
    assert!(read(&directory, "pysamp_42-2.html").contains("<html"));
}

#[test]
fn several_are_added_up() {
    let directory = recordings();
    let (code, stdout, _) = report(&directory, &["a.pysamp", "b.pysamp"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("6/6"), "{stdout}");
}

#[test]
fn what_cannot_be_read_is_one_sentence() {
    let directory = recordings();
    fs::write(directory.path().join("empty"), "").unwrap();
    fs::write(directory.path().join("foreign"), "hello").unwrap();
    for (file, why) in [
        ("missing", "No such file or directory"),
        (".", "Is a directory"),
        ("empty", "it is empty"),
        ("foreign", "it is not a recording of pysamp"),
    ] {
        let sentence = format!("pysamp: cannot read the recording '{file}': {why}\n");
        for arguments in [&["a.pysamp", file][..], &["-o", "out", file]] {
            let found = report(&directory, arguments);
            assert_eq!(found, (Some(1), String::new(), sentence.clone()));
        }
    }
    assert!(!directory.path().join("out").exists());
}

#[test]
fn wrong_usage_is_one_sentence() {
    let directory = recordings();
    for (arguments, sentence) in [
        (&[][..], "no recording is given; see 'pysamp report --help'"),
        (&["--svg", "--svg", "a"], "the option '--svg' is given twice"),
        (
            &["--svg", "--pstats", "-o", "-", "a"],
            "only one format can go to stdout; name a file with -o",
        ),
        (&["-r", "1khz", "a"], "there is no option '-r'"),
        (&["-o", "no/such/x", "a"], "there is no directory 'no/such' to write the output to"),
    ] {
        let found = report(&directory, arguments);
        assert_eq!(found, (Some(2), String::new(), format!("pysamp: {sentence}\n")));
    }
}

#[test]
fn damage_is_told_and_the_rest_is_shown() {
    let directory = recordings();
    let path = directory.path().join("a.pysamp");
    let bytes = fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(&path, &bytes[..used - 30]).unwrap();
    let (code, stdout, stderr) = report(&directory, &["--collapsed", "-o", "-", "a.pysamp"]);
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert!(stderr.starts_with("pysamp: 'a.pysamp': the recording is damaged after "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}
