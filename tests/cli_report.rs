//! `pysamp report` as a user meets it: formats, several recordings, errors.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
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
        let spent = Spent { count: 1, at_ns, state, wall_ns: 1_000_000, cpu_ns: 500_000 };
        recorder.sample(thread, &[Located::new(CodeId(0), 1)], 0, false, spent);
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
    result(Command::new(PYSAMP).arg("report").args(arguments).current_dir(directory))
}

/// Exit code, stdout and stderr of a command.
fn result(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
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
fn a_run_writes_its_one_profile_to_stdout_after_what_the_program_prints() {
    let directory = recordings();
    let run = |options: &[&str]| {
        let leave = r#"echo first; cp a.pysamp "$PYSAMP_RUN_DIR/$$.profile""#;
        let arguments = [&["run", "-o", "-"], options, &["--", "sh", "-c", leave]].concat();
        result(Command::new(PYSAMP).args(arguments).current_dir(&directory))
    };
    let (code, stdout, stderr) = run(&["--collapsed"]);
    assert_eq!((code, stdout), (Some(0), format!("first\n{LINE}")));
    assert!(stderr.starts_with("pysamp: 3 samples in ") && stderr.lines().count() == 1, "{stderr}");
    assert!(run(&[]).1.starts_with("first\nProfile Stats:"));
    assert!(run(&["--heatmap"]).1.starts_with("first\n<!DOCTYPE html>"));
    let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| name != "-"));
    for (options, sentence) in [
        (&["--svg", "--pstats"][..], "only one format can go to stdout; name a file with -o"),
        (&["--browser"], "'--browser' opens a file, not stdout; name one with -o"),
        (
            &["--svg", "--rotate", "1m"],
            "'--rotate' writes many profiles, and stdout takes one; name a file with -o",
        ),
    ] {
        assert_eq!(run(options), (Some(2), String::new(), format!("pysamp: {sentence}\n")));
    }
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

/// Runs its other arguments on a terminal, and keeps them from opening the file that is the first one until they
/// have said a second that half of all is done.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, select, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
seen = b''
end = time.time() + 20
while b'50%, 1 s' not in seen and time.time() < end:
    if select.select([terminal], [], [], 1)[0]:
        seen += os.read(terminal, 4096)
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)
try:
    while part := os.read(terminal, 4096):
        seen += part
except OSError:
    pass
os.waitpid(pid, 0)
os.write(1, seen)
"#;

#[test]
fn a_terminal_is_told_how_much_was_read() {
    let directory = recordings();
    let arguments = ["report", "--collapsed", "-o", "out", "a.pysamp", "b.pysamp"];
    let mut command = Command::new("python3");
    command.args(["-c", ON_A_TERMINAL, "b.pysamp", PYSAMP]).args(arguments);
    let (code, seen, stderr) = result(command.current_dir(&directory));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let said = "\r\x1b[Kpysamp: reading 2 of 2: b.pysamp, 50%, 1 s\r";
    assert!(seen.starts_with(said), "{seen:?}");
    // It goes when it is done.
    assert!(seen.contains("s\r\r\x1b[Kpysamp: wrote out: 6 samples"), "{seen:?}");
    assert!(seen.ends_with("\r\n\r\x1b[K\r"), "{seen:?}");
}

#[test]
fn a_heatmap_is_a_directory_or_one_file() {
    let directory = recordings();
    let heatmap = |arguments: &[&str]| {
        let (code, stdout, stderr) = report(&directory, &[&["--heatmap"], arguments].concat());
        let told = stderr.split_once(": 3 samples").map_or(&*stderr, |(told, _)| told).to_owned();
        (code, stdout, told)
    };
    let wrote = |name: &str| (Some(0), String::new(), format!("pysamp: wrote {name}"));
    assert_eq!(heatmap(&["a.pysamp", "-o", "h"]), wrote("h"));
    assert!(read(&directory, "h/index.html").contains(r#"src="heatmap.js""#));
    assert_eq!(heatmap(&["a.pysamp", "-o", "h.html"]), wrote("h.html"));
    let page = read(&directory, "h.html");
    assert!(page.ends_with("</html>\n") && page.contains("\"isOneFile\":true"), "{page}");
    let mode = directory.path().join("h.html").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(heatmap(&["a.pysamp", "-o", "-"]), (Some(0), page.clone(), String::new()));
    let (code, stdout, _) = heatmap(&["a.pysamp", "-o", "/dev/stdout"]);
    assert_eq!((code, stdout), (Some(0), page.clone()));
    // What was named is replaced if it is a file, and else in the way.
    fs::write(directory.path().join("old.htm"), "old").unwrap();
    assert_eq!(heatmap(&["a.pysamp", "-o", "old.htm"]), wrote("old.htm"));
    assert_eq!(read(&directory, "old.htm"), page);
    fs::create_dir(directory.path().join("d.html")).unwrap();
    let sentence = "pysamp: the output 'd.html' is a directory; name a file\n";
    assert_eq!(heatmap(&["a.pysamp", "-o", "d.html"]), (Some(2), String::new(), sentence.into()));
    assert_eq!(heatmap(&["--svg", "a.pysamp", "-o", "x.html"]), wrote("x.svg, x.heatmap.html"));
    assert_eq!(read(&directory, "x.heatmap.html"), page);
    assert_eq!(heatmap(&["--svg", "a.pysamp", "-o", "y"]), wrote("y.svg, y.heatmap"));
}

#[test]
fn recordings_are_not_replaced_by_what_is_made_of_them() {
    let directory = recordings();
    let bytes = |name: &str| fs::read(directory.path().join(name)).unwrap();
    let before = [bytes("a.pysamp"), bytes("b.pysamp")];
    fs::copy(directory.path().join("a.pysamp"), directory.path().join("of_42.pysamp")).unwrap();
    for (command, arguments) in [
        ("report", &["--svg", "-o", "a.pysamp", "a.pysamp"][..]),
        ("report", &["--svg", "--recording", "-o", "./a", "b.pysamp", "a.pysamp"]),
        ("report", &["--recording", "-o", "of_%p.pysamp", "of_42.pysamp"]),
        ("report", &["--diff-flamegraph", "a.pysamp", "-o", "a.pysamp", "b.pysamp"]),
        ("diff", &["-o", "a.pysamp", "a.pysamp", "b.pysamp"]),
    ] {
        let mut run = Command::new(PYSAMP);
        let (code, stdout, stderr) =
            result(run.arg(command).args(arguments).current_dir(&directory));
        assert_eq!(
            (code, stdout.as_str(), stderr.lines().count()),
            (Some(2), "", 1),
            "{arguments:?}"
        );
        assert!(stderr.starts_with("pysamp: the output would take the place of the recording '"));
    }
    assert_eq!([bytes("a.pysamp"), bytes("b.pysamp")], before);
    assert_eq!(bytes("of_42.pysamp"), before[0]);
    std::os::unix::fs::symlink("a.pysamp", directory.path().join("link")).unwrap();
    let twice = report(&directory, &["a.pysamp", "b.pysamp", "./a.pysamp"]);
    let sentence =
        "pysamp: the recordings 'a.pysamp' and './a.pysamp' are the same; name it once\n";
    assert_eq!(twice, (Some(2), String::new(), sentence.into()));
    let (code, ..) = report(&directory, &["--collapsed", "-o", "link", "a.pysamp"]);
    assert_eq!(
        (code, read(&directory, "link"), bytes("a.pysamp")),
        (Some(0), LINE.into(), before[0].clone())
    );
}

#[test]
fn parts_are_shown() {
    let directory = recordings();
    let only = |filter: &[&str]| {
        let arguments = ["--collapsed", "-o", "-", "a.pysamp", "b.pysamp"];
        report(&directory, &[filter, &arguments].concat())
    };
    let found = (Some(0), LINE.to_owned(), String::new());
    for filter in [["--process", "42"], ["--process", "4[0-2]"]] {
        assert_eq!(only(&filter), found);
    }
    for filter in [["--process", "app.*"], ["--thread", "5"], ["--function", "<unk*"]] {
        assert_eq!(only(&filter).1, LINE.replace('3', "6"));
    }
    for (filter, code, sentence) in [
        (&["--process", "7"][..], 1, "no process is '7'; there is app.py (42), app.py (43)"),
        (&["--thread", "7", "--thread", "x"], 1, "no thread is '7' or 'x'; there is 5, 5"),
        (&["--function", "f"], 1, "no function that was sampled is 'f'"),
        (
            &["--thread", "["],
            2,
            "--thread: '[' is not a pattern: a '[' has no ']'; write a name in which * stands for \
             anything",
        ),
        (
            &["--from", "2s", "--to", "1s"],
            2,
            "nothing is between '--from' and '--to'; the second has to be later",
        ),
        (
            &["--from", "-1"],
            2,
            "--from: '-1' is not a duration; write a time above zero, such as 10, 2.5s, 100ms or 5m",
        ),
    ] {
        assert_eq!(only(filter), (Some(code), String::new(), format!("pysamp: {sentence}\n")));
    }
}

#[test]
fn two_are_compared() {
    let directory = recordings();
    let diff = |arguments: &[&str]| {
        let mut command = Command::new(PYSAMP);
        let output = command.arg("diff").args(arguments).current_dir(&directory).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, stdout, stderr) = diff(&["a.pysamp", "b.pysamp"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("Slower: nothing\n\nFaster: nothing\n"), "{stdout}");
    let (code, stdout, stderr) = diff(&["--svg", "-o", "d.svg", "a.pysamp", "b.pysamp"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", "pysamp: wrote d.svg\n"));
    assert!(read(&directory, "d.svg").contains("app.py against app.py"));
    let (code, stdout, stderr) = diff(&["--flamegraph", "-o", "d.html", "a.pysamp", "b.pysamp"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", "pysamp: wrote d.html\n"));
    let compared = ["--diff-flamegraph", "a.pysamp", "b.pysamp"];
    let (code, ..) = report(&directory, &[&compared[..], &["-o", "e.html"]].concat());
    assert_eq!((code, read(&directory, "e.html")), (Some(0), read(&directory, "d.html")));
    let (code, _, stderr) = report(&directory, &["--diff-flamegraph", "none", "b.pysamp"]);
    assert!(
        code == Some(2) && stderr.starts_with("pysamp: cannot read the recording '"),
        "{stderr}"
    );
    assert!(stderr.to_lowercase().ends_with("/none': no such file or directory\n"), "{stderr}");
    for (arguments, sentence) in [
        (&["--svg", "a", "b"][..], "'--svg' makes a picture; name a file for it with -o"),
        (&["--flamegraph", "a", "b"], "'--flamegraph' makes a page; name a file for it with -o"),
        (&["--sort", "x", "a", "b"], "--sort: there is no sort key 'x'; it is one of self, total"),
        (&["a"], "two recordings are compared; name the one before and the one after"),
        (&["a", "b", "c"], "'c' is one argument too many"),
    ] {
        assert_eq!(diff(arguments), (Some(2), String::new(), format!("pysamp: {sentence}\n")));
    }
}

#[test]
fn a_page_is_opened() {
    let directory = recordings();
    let opener = directory.path().join("xdg-open");
    let script = "#!/bin/sh\necho \"$1\" > opened.part && mv opened.part opened\n";
    let write = r#"printf %s "$1" > "$0" && chmod 755 "$0""#;
    assert!(
        Command::new("sh").args(["-c", write]).arg(&opener).arg(script).status().unwrap().success()
    );
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    for (options, page) in [
        (&[][..], "/pysamp_42.html"),
        (&["--heatmap", "-o", "h"], "/h/index.html"),
        (&["--heatmap", "-o", "h.html"], "/h.html"),
    ] {
        let mut command = Command::new(PYSAMP);
        command.args(["report", "--browser", "a.pysamp"]).args(options).current_dir(&directory);
        assert!(command.env("PATH", &path).status().unwrap().success());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !directory.path().join("opened").exists() {
            assert!(std::time::Instant::now() < deadline, "nothing is opened");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let opened = read(&directory, "opened");
        assert!(opened.trim().ends_with(page), "{opened}");
        fs::remove_file(directory.path().join("opened")).unwrap();
    }
    let none = report(&directory, &["--browser", "--collapsed", "a.pysamp"]);
    let sentence = "pysamp: '--browser' opens a page; add --flamegraph\n";
    assert_eq!(none, (Some(2), String::new(), sentence.to_owned()));
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
