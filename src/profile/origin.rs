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
        match self.library() {
            Some((origin, _)) => origin,
            None => Origin::Program,
        }
    }

    /// The path below the directory of the library that it is in; the whole path if it is in none.
    pub fn path_in_library(&self) -> &str {
        self.library().map_or(&self.file, |(_, path)| path)
    }

    /// The library that it is in, and where in it.
    fn library(&self) -> Option<(Origin, &str)> {
        let file = &*self.file;
        if file.starts_with("<frozen ") || file == "~" {
            return Some((Origin::Standard, file));
        }
        for packages in ["/site-packages/", "/dist-packages/"] {
            if let Some((_, path)) = file.rsplit_once(packages) {
                return Some((Origin::Package, path));
            }
        }
        let mut rest = file;
        let mut is_lib = false;
        while let Some((part, below)) = rest.split_once('/') {
            if is_lib && is_python(part) {
                return Some((Origin::Standard, below));
            }
            is_lib = part.starts_with("lib");
            rest = below;
        }
        None
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
        let path = |file: &str| {
            let function = Function { file: file.into(), name: "f".into(), first_line: 1 };
            function.path_in_library().to_owned()
        };
        assert_eq!(path("/usr/lib/python3.12/json/decoder.py"), "json/decoder.py");
        assert_eq!(path("/v/lib/python3.9/site-packages/a/b.py"), "a/b.py");
        assert_eq!(path("/home/me/app.py"), "/home/me/app.py");
    }
}
