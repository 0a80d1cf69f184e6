//! Writes `include/pysamp.h` from the C functions in `src/ffi`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    for input in ["build.rs", "cbindgen.toml", "src/ffi", "include"] {
        println!("cargo::rerun-if-changed={input}");
    }
    println!("cargo::rerun-if-env-changed=CI");
    // Its thread and its handlers outlive any dlclose.
    println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
    // Part of a program, Python's symbols are the program's; preloaded, there are none to link with,
    // and none may be looked for.
    for name in
        ["_PyRuntime", "Py_GetVersion", "PyCode_Type", "Py_AddPendingCall", "_Py_NegativeRefcount"]
    {
        println!("cargo::rustc-link-arg-cdylib=-Wl,--defsym={name}=0");
    }
    // A build server has to find out that the committed header is not up to date.
    if env::var_os("CI").is_none() {
        write_header(&root);
    }
}

/// Makes the header, unless it is what it should be or the sources cannot be written to. Sources
/// that are no Rust are left for the compiler to complain about.
fn write_header(root: &Path) {
    let Ok(config) = cbindgen::Config::from_file(root.join("cbindgen.toml")) else {
        println!("cargo::warning=cbindgen.toml cannot be read; include/pysamp.h stays as it is");
        return;
    };
    let sources = ["mod.rs", "status.rs"].map(|name| root.join("src/ffi").join(name));
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = sources.iter().fold(builder, |builder, source| builder.with_src(source));
    let Ok(bindings) = builder.generate() else { return };
    let mut header = Vec::new();
    bindings.write(&mut header);
    let path = root.join("include/pysamp.h");
    if fs::read(&path).ok().as_deref() != Some(&header) {
        let _ = fs::write(&path, header);
    }
}
