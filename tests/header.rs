//! `include/pysamp.h` is what the sources say, and both C and C++ take it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_committed_header_is_up_to_date() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config);
    let sources = ["src/ffi/mod.rs", "src/ffi/status.rs"].map(|source| root().join(source));
    let builder = sources.iter().fold(builder, |builder, source| builder.with_src(source));
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let committed = fs::read_to_string(root().join("include/pysamp.h")).unwrap();
    let made = String::from_utf8(made).unwrap();
    assert!(made == committed, "include/pysamp.h is out of date; it would be:\n{made}");
}

#[test]
fn c_and_cplusplus_take_the_header() {
    let dialects =
        [("cc", "c", "c99"), ("cc", "c", "c17"), ("c++", "c++", "c++11"), ("c++", "c++", "c++20")];
    for (compiler, language, standard) in dialects {
        let checked = Command::new(compiler)
            .args(["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
            .args(["-x", language, &format!("-std={standard}")])
            .arg(root().join("include/pysamp.h"))
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{standard}: {complaints}");
    }
}
