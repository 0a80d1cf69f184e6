//! Whose code a function is, as far as its file's path tells.

use super::Function;

/// Whose code a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The program's own.
    Program,
    /// A package that was installed.
    Package,
    /// Python's standard library, or the interpreter itself.
    Standard,
}

impl Function {
    /// Whose code it is: installed packages are in `site-packages` or `dist-packages`, the standard
    /// library is in `lib/python3.12` or a frozen module.
    pub fn origin(&self) -> Origin {
        let file = &*self.file;
        let is_inside =
            |directory: &str| file.split('/').rev().skip(1).any(|part| part == directory);
        if is_inside("site-packages") || is_inside("dist-packages") {
            return Origin::Package;
        }
        let is_frozen = file.starts_with("<frozen ") || file == "~";
        let mut parts = file.split('/').peekable();
        let mut is_library = || {
            while let Some(part) = parts.next() {
                if part.starts_with("lib") && parts.peek().is_some_and(|next| is_python(next)) {
                    return true;
                }
            }
            false
        };
        if is_frozen || is_library() { Origin::Standard } else { Origin::Program }
    }
}

/// Whether a directory or archive is named after a version: `python3.12`, `python3.13t`,
/// `python312.zip`.
fn is_python(name: &str) -> bool {
    let Some(version) = name.strip_prefix("python") else { return false };
    let version = version.strip_suffix(".zip").or(version.strip_suffix('t')).unwrap_or(version);
    version.starts_with(|c: char| c.is_ascii_digit())
        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_whose_code_it_is() {
        for (file, origin) in [
            ("/home/me/app.py", Origin::Program),
            ("app.py", Origin::Program),
            ("<string>", Origin::Program),
            ("/home/me/lib/python_tools/x.py", Origin::Program),
            ("/home/me/python3.12/x.py", Origin::Program),
            ("/x/site-packages", Origin::Program),
            ("/usr/lib/python3.12/json/decoder.py", Origin::Standard),
            ("/usr/lib64/python3.13t/json/decoder.py", Origin::Standard),
            ("/usr/lib/python312.zip/json/decoder.py", Origin::Standard),
            ("<frozen importlib._bootstrap>", Origin::Standard),
            ("~", Origin::Standard),
            ("/v/lib/python3.12/site-packages/numpy/core.py", Origin::Package),
            ("/usr/lib/python3/dist-packages/apt/x.py", Origin::Package),
        ] {
            let function = Function { file: file.into(), name: "f".into(), first_line: 1 };
            assert_eq!(function.origin(), origin, "{file}");
        }
    }
}
