//! Whatever a program calls its functions, files and threads, profiles and terminals take no harm.

use crate::support::{Cores, command, ensure, library, on_each, run_to_end};

#[test]
fn names_are_inert_in_every_format() {
    on_each(Cores::one, |python| {
        let library = library();
        let arguments = [library.to_str().ok_or("the library's path is no text")?];
        let output = run_to_end(&mut command(python, "hostile_names.py", &arguments))?.output;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure(output.status.success(), || format!("{}: {said}", output.status))
    });
}
