//! `pysamp run` as a user meets it: pass-through, results, errors before the start.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use pysamp::config::Config;
use tempfile::TempDir;

const PYSAMP: &str = env!("CARGO_BIN_EXE_pysamp");
const NOTHING: &str = "nothing was profiled\n";

/// What a profiled process would leave, as shell commands.
const DONE: &str = r#": > "$PYSAMP_RUN_DIR/$$.done""#;

struct Result {
    code: Option<i32>,
    signal: Option<i32>,
    stdout: String,
    stderr: String,
}

fn pysamp() -> Command {
    let mut command = Command::new(PYSAMP);
    command.arg("run");
    command
}

fn result(command: &mut Command) -> Result {
    let output = command.output().unwrap();
    Result {
        code: output.status.code(),
        signal: output.status.signal(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a shell script under pysamp.
fn sh(script: &str) -> Result {
    result(pysamp().args(["--", "sh", "-c", script]))
}

/// Runs pysamp where it has to fail before the program starts.
#[track_caller]
fn refused(command: &mut Command, sentence: &str) {
    let result = result(command);
    assert_eq!(result.stderr, format!("pysamp: {sentence}\n"));
    assert_eq!((result.code, result.stdout.as_str()), (Some(2), ""));
}

/// Writes an executable script. By another process: while this one has it open for writing, a test
/// beside this one may fork and keep it open, and then it cannot be run.
fn executable(path: &Path, text: &str) {
    let script = r#"printf %s "$1" > "$0" && chmod 755 "$0""#;
    Command::new("sh").args(["-c", script]).arg(path).arg(text).assert().success();
}

fn scratch() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().canonicalize().unwrap();
    (directory, path)
}

#[test]
fn exit_codes_pass_through() {
    for code in [0, 1, 7, 255] {
        let result = sh(&format!("{DONE}; exit {code}"));
        assert_eq!(result.code, Some(code));
        assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("", ""));
    }
}

#[test]
fn the_end_by_a_signal_passes_through() {
    // SIGHUP, SIGKILL, SIGSEGV, SIGTERM, the first real-time signal
    for signal in [1, 9, 11, 15, 34] {
        let result = sh(&format!("{DONE}; kill -{signal} $$"));
        assert_eq!(result.signal, Some(signal));
        assert_eq!(result.stderr, "");
    }
    let silent = sh("kill -9 $$");
    assert_eq!(silent.signal, Some(9));
    assert_eq!(silent.stderr, "pysamp: 'sh' was killed by signal 9 and left no profile\n");
}

#[test]
fn input_and_output_pass_through() {
    let script = format!("cat; echo complaint >&2; {DONE}");
    let result = result(pysamp().args(["--", "sh", "-c", &script]).write_stdin("a\nb"));
    assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("a\nb", "complaint\n"));
}

#[test]
fn arguments_after_a_command_are_its_own() {
    let rest = ["-o", "x", "--help", "--", "", "a b", "-m"];
    let result = result(pysamp().args(["--", "printf", "[%s]"]).args(rest));
    assert_eq!(result.stdout, "[-o][x][--help][--][][a b][-m]");
}

/// What the program printed: the table comes after it.
fn before_table(stdout: &str) -> &str {
    stdout.split("Profile Stats:\n").next().unwrap_or_default()
}

const SHOW: &str = "import sys; print(sys.argv, __name__, sys.path[0], sys.orig_argv[1:])";

#[test]
fn a_script_runs_as_python_runs_it() {
    let (_keep, directory) = scratch();
    fs::write(directory.join("show.py"), SHOW).unwrap();
    for script in ["show.py", "./show.py", directory.join("show.py").to_str().unwrap()] {
        let arguments = [script, "-o", "x", "--help", "--", "-m"];
        let plain = result(Command::new("python3").args(arguments).current_dir(&directory));
        let profiled = result(pysamp().args(arguments).current_dir(&directory));
        assert!(plain.stdout.contains("'--help'"));
        assert_eq!(before_table(&profiled.stdout), plain.stdout);
    }
}

#[test]
fn a_module_runs_as_python_runs_it() {
    let (_keep, directory) = scratch();
    fs::write(directory.join("show.py"), SHOW).unwrap();
    let arguments = ["-m", "show", "--svg", "--help", "--", "-m", "x"];
    let plain = result(Command::new("python3").args(arguments).current_dir(&directory));
    assert!(plain.stdout.contains("'--help'"));
    let profiled = result(pysamp().arg("--svg").args(arguments).current_dir(&directory));
    assert_eq!(profiled.stdout, plain.stdout);
    let attached = result(pysamp().args(["-mshow", "--svg"]).current_dir(&directory));
    assert!(attached.stdout.contains("'--svg'"), "{}", attached.stderr);
}

#[test]
fn the_interpreter_is_the_one_on_path_or_the_one_named() {
    let (_keep, directory) = scratch();
    let fake = |name: &str| {
        executable(&directory.join(name), &format!("#!/bin/sh\necho {name} \"$@\"; {DONE}"));
    };
    let run = |arguments: &[&str]| {
        let path = format!("{}:/nonexistent", directory.display());
        result(pysamp().env("PATH", path).args(arguments).current_dir(&directory))
    };
    let none = run(&["-m", "x"]).stderr;
    assert!(none.starts_with("pysamp: there is neither a python3 nor a python"), "{none}");
    fake("python");
    assert_eq!(run(&["-m", "x", "y"]).stdout, "python -m x y\n");
    fake("python3");
    assert_eq!(run(&["-m", "x", "y"]).stdout, "python3 -m x y\n");
    fake("other");
    assert_eq!(run(&["--python", "other", "-m", "x"]).stdout, "other -m x\n");
    assert_eq!(run(&["--python", "./other", "-m", "x"]).stdout, "other -m x\n");
}

#[test]
fn the_program_gets_library_configuration_and_run_directory() {
    let script = format!(r#"echo "$LD_PRELOAD|$PYTHONSAMPLE|$PYSAMP_RUN_DIR"; {DONE}"#);
    let library = Path::new(PYSAMP).with_file_name("libpysamp.so");
    let library = library.to_str().unwrap();
    let mut command = pysamp();
    command.args(["-r", "2khz", "-o", "/tmp/p_%p", "--", "sh", "-c", &script]);
    let shown = result(command.env_remove("LD_PRELOAD")).stdout;
    let [preload, config, run_dir] = shown.trim().split('|').collect::<Vec<_>>()[..] else {
        panic!("{shown}")
    };
    assert_eq!(preload, library);
    assert!(config.contains("sampling-rate=2000,") && config.ends_with(",output=/tmp/p_%p"));
    assert!(run_dir.starts_with('/') && !Path::new(run_dir).exists(), "{run_dir} is still there");

    // libc is loaded anyway: preloading it changes nothing.
    let existing = result(command.env("LD_PRELOAD", "libc.so.6")).stdout;
    assert!(existing.starts_with(&format!("{library}:libc.so.6|")), "{existing}");
}

/// Runs its arguments on a terminal of 80 columns.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
try:
    while os.read(terminal, 1024):
        pass
except OSError:
    pass
os.waitpid(pid, 0)
"#;

#[test]
fn the_table_is_cut_to_a_terminal_but_never_in_a_pipe() {
    let (_keep, directory) = scratch();
    let command = ["run", "--", "sh", "-c", r#"echo "$PYTHONSAMPLE" > config"#];
    let config = |runner: &mut Command| {
        runner.args(command).current_dir(&directory).output().unwrap();
        fs::read_to_string(directory.join("config")).unwrap()
    };
    let on_terminal = config(Command::new("python3").args(["-c", ON_A_TERMINAL, PYSAMP]));
    assert!(on_terminal.contains(",width=80"), "{on_terminal}");
    let piped = config(&mut Command::new(PYSAMP));
    assert!(piped.contains("sort=") && !piped.contains("width"), "{piped}");
}

#[test]
fn a_library_that_cannot_be_named_is_linked_to() {
    let (_keep, directory) = scratch();
    let odd = directory.join("with space:and $colon");
    fs::create_dir_all(odd.join("bin")).unwrap();
    fs::create_dir_all(odd.join("lib")).unwrap();
    Command::new("cp").arg(PYSAMP).arg(odd.join("bin/pysamp")).assert().success();
    let link = directory.join("pysamp");
    symlink(odd.join("bin/pysamp"), &link).unwrap();
    let script = format!(r#"readlink "$LD_PRELOAD"; {DONE}"#);
    let run = || result(Command::new(&link).args(["run", "--", "sh", "-c", &script]));

    let missing = run();
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.starts_with("pysamp: cannot find libpysamp.so"), "{}", missing.stderr);
    let library = odd.join("lib/libpysamp.so");
    fs::copy(Path::new(PYSAMP).with_file_name("libpysamp.so"), &library).unwrap();
    let found = run();
    // The loader says so on stderr when it cannot preload.
    assert_eq!(found.stderr, "");
    assert_eq!(found.stdout.trim(), library.to_str().unwrap());
}

#[test]
fn one_table_is_shown_as_it_is_after_the_output() {
    let result = sh(r#"echo output; printf 'a table\n' > "$PYSAMP_RUN_DIR/$$.table"; exit 3"#);
    assert_eq!((result.code, result.stdout.as_str()), (Some(3), "output\na table\n"));
}

#[test]
fn several_tables_are_headed_and_the_program_comes_first() {
    let script = r#"echo $$; cd "$PYSAMP_RUN_DIR"; echo own > $$.table; echo child > 1.table"#;
    let shown = sh(script).stdout;
    let pid = shown.lines().next().unwrap();
    assert_eq!(shown, format!("{pid}\nProcess {pid}:\nown\n\nProcess 1:\nchild\n"));
}

#[test]
fn a_reader_that_has_seen_enough_changes_nothing() {
    let script = format!(
        r#"{PYSAMP} run -- sh -c 'head -c 1000000 /dev/zero > "$PYSAMP_RUN_DIR/1.table"; exit 5' | :
           "#
    );
    let result =
        result(Command::new("bash").args(["-c", &format!("{script}\necho ${{PIPESTATUS[0]}}")]));
    assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("5\n", ""));
}

#[test]
fn a_table_that_cannot_be_shown_is_a_failure() {
    let (_keep, directory) = scratch();
    // As long as a file may get under the limit below, which the table itself stays under.
    fs::write(directory.join("out"), [b'.'; 1024]).unwrap();
    let script = r#"echo own > "$PYSAMP_RUN_DIR/1.table""#;
    let command =
        format!("trap '' XFSZ; ulimit -f 1; exec {PYSAMP} run -- sh -c '{script}' >> out");
    let result = result(Command::new("bash").args(["-c", &command]).current_dir(&directory));
    assert_eq!(result.stderr, "pysamp: cannot write the table to stdout: File too large\n");
    assert_eq!(result.code, Some(1));
}

#[test]
fn a_run_without_a_profile_is_a_failure() {
    for (code, expected) in [(0, 1), (4, 4)] {
        let nothing = sh(&format!("exit {code}"));
        assert_eq!(nothing.code, Some(expected));
        assert_eq!(nothing.stderr, format!("pysamp: no CPython ran in 'sh'; {NOTHING}"));
        let declined = sh(&format!(r#": > "$PYSAMP_RUN_DIR/$$.declined"; exit {code}"#));
        assert_eq!((declined.code, declined.stderr.as_str()), (Some(expected), ""));
    }
    let both = sh(&format!(r#"{DONE}; : > "$PYSAMP_RUN_DIR/1.declined""#));
    assert_eq!(both.code, Some(0));
}

#[test]
fn what_cannot_be_started_is_explained() {
    let (_keep, directory) = scratch();
    let file = |name: &str, mode: u32| {
        fs::write(directory.join(name), "echo ran").unwrap();
        fs::set_permissions(directory.join(name), Permissions::from_mode(mode)).unwrap();
    };
    file("plain.py", 0o644);
    file("plain", 0o644);
    for (arguments, sentence) in [
        (&["x.py", "-o"][..], "cannot find the script 'x.py'"),
        (&["--", "./x"], "cannot find the command './x'"),
        (&["--", "pysamp-no-such"], "cannot find the command 'pysamp-no-such'"),
        (&["--", "./plain"], "'./plain' is not executable"),
        (&["--", "/"], "'/' is a directory, not a command"),
        (
            &["--", "plain.py"],
            "'plain.py' is not an executable on PATH; to run it with Python leave out the '--'",
        ),
        (&["--python", "./plain", "plain.py"], "--python: './plain' is not executable"),
        (&["--python", "./none", "plain.py"], "--python: cannot find './none'"),
        (&[], "nothing to run; name a script, '-m' and a module, or '--' and a command"),
    ] {
        refused(pysamp().args(arguments).current_dir(&directory), sentence);
    }
}

#[test]
fn what_the_kernel_refuses_to_start_is_explained() {
    let (_keep, directory) = scratch();
    executable(&directory.join("broken"), "#!/no/such/interpreter\n");
    let sentence = "cannot run './broken': No such file or directory";
    refused(pysamp().args(["--", "./broken"]).current_dir(&directory), sentence);
}

#[test]
fn outputs_that_cannot_be_written_are_found_before_the_start() {
    let (_keep, directory) = scratch();
    fs::write(directory.join("file"), "kept").unwrap();
    let shown = directory.display();
    for (output, sentence) in [
        (".", format!("the output '{shown}/.' is a directory; name a file")),
        ("no/x", format!("there is no directory '{shown}/no' to write the output to")),
        ("no/%p/x", format!("there is no directory '{shown}/no' to write the output to")),
        ("file/x", format!("the output cannot go into '{shown}/file', which is no directory")),
        ("x/", "--output: the output path 'x/' is a directory; name a file".to_owned()),
        (
            "%d",
            "--output: '%d' in the output path '%d' means nothing; use %p, %t, %n, %i or %%"
                .to_owned(),
        ),
    ] {
        let mut command = pysamp();
        command.args(["-o", output, "--", "echo", "ran"]).current_dir(&directory);
        let result = result(&mut command);
        assert_eq!(result.stdout, "", "{output}");
        assert_eq!(result.code, Some(2));
        assert_eq!(result.stderr, format!("pysamp: {sentence}\n"));
    }
    for output in ["file", "new", "%n/%p"] {
        let mut command = pysamp();
        command.args(["-o", output, "--", "echo", "ran"]).current_dir(&directory);
        assert_eq!(result(&mut command).stdout, "ran\n", "{output}");
    }
    assert_eq!(fs::read_to_string(directory.join("file")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "something was created");
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["run", "--help"], &["run", "-h"], &["--version"]] {
        let result = result(Command::new(PYSAMP).args(arguments));
        assert_eq!((result.code, result.stderr.as_str()), (Some(0), ""));
        assert!(result.stdout.contains("pysamp"), "{}", result.stdout);
    }
    let help = result(pysamp().arg("--help")).stdout;
    let (options, environment) = help.split_once("\nEnvironment:\n").unwrap();
    assert!(options.contains("-m <MODULE>") && options.contains("--no-summary"), "{options}");
    for variable in ["LD_PRELOAD", "PYTHONSAMPLE", "TMPDIR"] {
        assert!(environment.contains(&format!("  {variable}  ")), "{environment}");
    }
    let (_, example) = environment.split_once("commas: ").unwrap();
    let example = example.lines().next().unwrap();
    assert!(Config::from_env_value(OsStr::new(example)).unwrap().is_some(), "{example}");
    let bare = result(&mut Command::new(PYSAMP));
    assert_eq!((bare.code, bare.stdout.as_str()), (Some(2), ""));
}

#[test]
fn a_temporary_directory_that_cannot_be_made_is_explained() {
    let result = result(pysamp().env("TMPDIR", "/nonexistent").args(["--", "echo", "ran"]));
    assert_eq!((result.code, result.stdout.as_str()), (Some(1), ""));
    assert!(result.stderr.starts_with("pysamp: cannot make a directory in '/nonexistent':"));
}
