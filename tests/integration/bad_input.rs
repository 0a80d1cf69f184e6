//! Where pysamp cannot work it says one sentence, or nothing, and gets out of the way.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::{
    Cores, Interpreter, command, ensure, library, on_all, on_each, run_to_end, unsupported,
};

/// Runs fails.py without and with pysamp, where it must do the same; returns what pysamp said.
fn beside(python: &Interpreter, options: &str) -> Result<Vec<String>, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut program = command(python, "fails.py", &[]);
    let plain = run_to_end(program.current_dir(&directory))?.output;
    ensure(plain.status.code() == Some(3), || format!("fails.py ended with {}", plain.status))?;
    program.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", options);
    let found = run_to_end(&mut program)?.output;
    let stderr = String::from_utf8_lossy(&found.stderr).into_owned();
    ensure(found.status == plain.status, || format!("{options}: {}: {stderr}", found.status))?;
    ensure(found.stdout == plain.stdout, || format!("{options}: stdout differs"))?;
    let (said, own): (Vec<&str>, Vec<&str>) =
        stderr.split_inclusive('\n').partition(|line| line.starts_with("pysamp: "));
    let expected = String::from_utf8_lossy(&plain.stderr);
    ensure(own.concat() == expected, || format!("{options}: stderr differs: {stderr}"))?;
    // One that takes its time has recorded by then, and is told that this is kept.
    let left = directory.path().read_dir().map_err(|error| error.to_string())?.flatten();
    let is_kept = |path: PathBuf| stderr.contains(&format!("is kept in {}\n", path.display()));
    let mut unsaid = left.filter(|file| !is_kept(file.path()));
    ensure(unsaid.next().is_none(), || format!("{options}: files are left: {stderr}"))?;
    Ok(said.into_iter().map(str::to_owned).collect())
}

fn one_sentence(options: &str, said: &[String], about: &str) -> Result<(), String> {
    let &[line] = &said else { return Err(format!("{options}: not one sentence: {said:?}")) };
    ensure(line.contains(about), || format!("{options}: {about:?} is not mentioned: {line}"))
}

#[test]
fn a_bad_option_is_one_sentence() {
    on_each(Cores::one, |python| {
        for (options, about) in [
            ("rate=fast", "fast"),
            ("rate=0", "rate"),
            ("rate=-5", "-5"),
            ("rate=", "rate"),
            ("nonsense=1", "nonsense"),
            ("mode=sideways", "sideways"),
            ("format=papyrus", "papyrus"),
            ("rate=1khz,,blocking", "comma"),
            ("yes", "yes"),
        ] {
            one_sentence(options, &beside(python, options)?, about)?;
        }
        Ok(())
    });
}

#[test]
fn an_output_that_cannot_be_written_is_one_sentence() {
    on_each(Cores::one, |python| {
        for output in ["/nowhere/at/all/%p.txt", "/proc/%p.txt", "/dev/full", "/"] {
            let options = format!("format=collapsed,output={output}");
            one_sentence(&options, &beside(python, &options)?, output.trim_end_matches("%p.txt"))?;
        }
        Ok(())
    });
}

#[test]
fn an_unsupported_python_is_one_sentence() {
    on_all(&unsupported(), Cores::one, |python| {
        let (major, minor) = python.minor();
        one_sentence("1", &beside(python, "1")?, &format!("{major}.{minor}"))
    });
}

#[test]
fn turned_off_it_says_nothing() {
    on_each(Cores::one, |python| {
        let said = beside(python, "0")?;
        ensure(said.is_empty(), || format!("{said:?}"))
    });
}

#[test]
fn what_is_not_python_is_left_alone() {
    let run = |command: &[&str], preloaded: bool| -> Output {
        let mut process = Command::new(command[0]);
        process.args(&command[1..]).env_remove("PYTHONSAMPLE").env_remove("LD_PRELOAD");
        if preloaded {
            process.env("LD_PRELOAD", library()).env("PYTHONSAMPLE", "rate=1khz");
        }
        run_to_end(&mut process).unwrap().output
    };
    let commands: [&[&str]; 5] = [
        &["true"],
        &["false"],
        &["sh", "-c", "echo out; echo err >&2; exit 5"],
        &["sh", "-c", "kill -TERM $$"],
        &["git", "--version"],
    ];
    for command in commands {
        let (plain, found) = (run(command, false), run(command, true));
        assert_eq!(plain, found, "{command:?}");
    }
    // What the kernel knows of a process besides: its threads and signals.
    let facts = |preloaded| {
        let status = run(&["cat", "/proc/self/status"], preloaded).stdout;
        let status = String::from_utf8(status).unwrap();
        let kept = |line: &&str| line.starts_with("Threads:") || line.starts_with("Sig");
        let facts: Vec<String> = status.lines().filter(kept).map(str::to_owned).collect();
        assert!(facts.contains(&"Threads:\t1".to_owned()), "{facts:?}");
        assert!(facts.len() > 4, "{status}");
        facts
    };
    assert_eq!(facts(false), facts(true));
    let descriptors = |preloaded| run(&["sh", "-c", "echo /proc/$$/fd/*"], preloaded).stdout.len();
    assert_eq!(descriptors(false), descriptors(true));
}
