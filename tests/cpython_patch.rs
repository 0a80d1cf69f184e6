//! The patches of CPython fit the series they are for, as far as an installed Python can tell: its
//! headers and its standard library take them, and what they add compiles and parses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, unused_imports, unsafe_code)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Cores, Interpreter, ensure, on_all, supported};

const SERIES: [(u8, u8); 3] = [(3, 13), (3, 14), (3, 15)];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A patch, cut into its files: their paths, and the lines on each.
fn files(series: (u8, u8)) -> Vec<(String, String)> {
    let path = root().join(format!("cpython-patch/{}.{}.patch", series.0, series.1));
    let text = fs::read_to_string(path).unwrap();
    let mut files: Vec<(String, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        if let Some(names) = line.strip_prefix("diff --git a/") {
            files.push((names.split(' ').next().unwrap().to_owned(), String::new()));
        }
        files.last_mut().unwrap().1.push_str(line);
    }
    files
}

fn is_new(text: &str) -> bool {
    text.contains("\n--- /dev/null\n")
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    ensure(output.status.success(), || {
        format!("{command:?}: {}{}", text(&output.stdout), text(&output.stderr))
    })?;
    Ok(text(&output.stdout))
}

/// Where the headers and the standard library are.
fn directories(python: &Interpreter) -> Result<(PathBuf, PathBuf), String> {
    const PROBE: &str = "import sysconfig; paths = sysconfig.get_paths()
print(paths['include'], paths['stdlib'], sep='\\n')";
    let found = run(Command::new(&python.path).args(["-c", PROBE]))?;
    match found.lines().collect::<Vec<_>>()[..] {
        [include, library] => Ok((include.into(), library.into())),
        _ => Err(found),
    }
}

fn check(python: &Interpreter) -> Result<(), String> {
    let fault = |error: std::io::Error| error.to_string();
    let (include, library) = directories(python)?;
    let tree = tempfile::tempdir().map_err(fault)?;
    let tree = tree.path();
    run(Command::new("cp").arg("-r").arg(&include).arg(tree.join("Include")))?;
    // Of the source, an installed Python has the headers and the library, if not all of its tests.
    let mut patch = String::new();
    for (path, text) in files(python.minor()) {
        let is_there = match path.strip_prefix("Lib/") {
            Some(place) if library.join(place).exists() => {
                fs::create_dir_all(tree.join(&path).parent().unwrap()).map_err(fault)?;
                fs::copy(library.join(place), tree.join(&path)).map_err(fault)?;
                true
            }
            _ => tree.join(&path).exists() || is_new(&text),
        };
        if is_there {
            patch.push_str(&text);
        }
    }
    fs::write(tree.join("patch"), patch).map_err(fault)?;
    run(Command::new("patch").current_dir(tree).args(["-s", "-p1", "-F0", "-i", "patch"]))?;

    for is_built_in in [true, false] {
        let mut compiler = Command::new("cc");
        compiler.current_dir(tree).args(["-fsyntax-only", "-std=c11", "-Wall", "-Wextra"]);
        compiler.args(["-Werror", "-Wno-unused-parameter", "-DPy_BUILD_CORE", "-IInclude"]);
        compiler.arg("-IInclude/internal").arg("-I").arg(root().join("include"));
        compiler.args(is_built_in.then_some("-DHAVE_PYSAMP"));
        run(compiler.arg("Python/sampler.c"))?;
    }
    run(Command::new(&python.path)
        .current_dir(tree)
        .args(["-c", "import ast; ast.parse(open('Lib/test/test_sampler.py').read())"]))?;
    Ok(())
}

#[test]
fn patches_fit_what_is_installed() {
    let fitting: Vec<Interpreter> = supported()
        .iter()
        .filter(|one| SERIES.contains(&one.minor()))
        .filter(|one| directories(one).is_ok_and(|(include, _)| include.join("Python.h").exists()))
        .cloned()
        .collect();
    on_all(&fitting, Cores::one, check);
}

/// What does not touch CPython's own lines is one and the same.
#[test]
fn patches_add_the_same_files() {
    let added = |series| -> Vec<(String, String)> {
        files(series).into_iter().filter(|(_, text)| is_new(text)).collect()
    };
    let first = added(SERIES[0]);
    assert_eq!(first.len(), 2);
    for series in SERIES {
        assert!(added(series) == first, "{series:?} differs from {:?}", SERIES[0]);
    }
}
