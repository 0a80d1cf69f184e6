//! Where a profile goes: a path with placeholders for the process that writes it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::ConfigError;
use crate::export::{Format, is_hidden, stem};

/// Long enough for every real program name, short enough to leave room in a file name.
const LONGEST_PROGRAM_NAME: usize = 100;

/// A path in which `%p` is the process id, `%t` the start time in seconds since the Unix epoch,
/// `%n` the program's name, `%i` the profile's number and `%%` a percent sign.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutputTemplate(OsString);

impl OutputTemplate {
    /// Checks a template; the path may hold any bytes but NUL.
    pub fn new(template: impl Into<OsString>) -> Result<Self, ConfigError> {
        let template = Self(template.into());
        let bytes = template.0.as_bytes();
        if bytes.is_empty() {
            return Err(ConfigError::OutputEmpty);
        }
        if bytes.contains(&0) {
            return Err(ConfigError::OutputNul);
        }
        if bytes.ends_with(b"/") {
            return Err(ConfigError::OutputDirectory(template.lossy()));
        }
        for piece in template.pieces() {
            if let Piece::Unknown(sequence) = piece {
                let sequence = String::from_utf8_lossy(sequence).escape_debug().to_string();
                return Err(ConfigError::OutputSequence { sequence, path: template.lossy() });
            }
        }
        Ok(template)
    }

    /// Where a profile goes if nobody has chosen.
    pub fn usual(ending: &str) -> Self {
        Self(format!("pysamp_%p.{ending}").into())
    }

    /// The same template with another ending of the file's name.
    pub fn with_ending(&self, ending: &str) -> Self {
        Self(with_ending(Path::new(&self.0), ending).into())
    }

    /// The format that the name tells, if it does.
    pub fn format(&self) -> Option<Format> {
        Format::of_name(&self.0)
    }

    /// The template as it was written.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// The path for one process's profile. A number goes where `%i` is, else before the ending of
    /// the file's name.
    pub fn expand(
        &self,
        pid: u32,
        start_unix_ns: u64,
        program: &str,
        number: Option<u32>,
    ) -> PathBuf {
        let mut has_number = false;
        let mut path = Vec::with_capacity(self.0.len() + 16);
        for piece in self.pieces() {
            match piece {
                Piece::Literal(bytes) | Piece::Unknown(bytes) => path.extend_from_slice(bytes),
                Piece::Pid => path.extend_from_slice(pid.to_string().as_bytes()),
                Piece::Start => {
                    path.extend_from_slice((start_unix_ns / 1_000_000_000).to_string().as_bytes());
                }
                Piece::Program => path.extend_from_slice(file_name_part(program).as_bytes()),
                Piece::Number => {
                    has_number = true;
                    path.extend_from_slice(format!("{:04}", number.unwrap_or(1)).as_bytes());
                }
            }
        }
        let path = PathBuf::from(OsString::from_vec(path));
        match number {
            Some(number) if !has_number => with_number(&path, number),
            _ => path,
        }
    }

    /// Whether two processes get different paths: `%p` is in it.
    pub fn has_pid(&self) -> bool {
        self.pieces().any(|piece| matches!(piece, Piece::Pid))
    }

    /// Whether `%i` is in it: each profile gets a path of its own.
    pub fn has_number(&self) -> bool {
        self.pieces().any(|piece| matches!(piece, Piece::Number))
    }

    /// The path, if it is the same for every profile.
    pub fn fixed(&self) -> Option<PathBuf> {
        let fixed = self.pieces().all(|piece| matches!(piece, Piece::Literal(_)));
        fixed.then(|| self.expand(0, 0, "", None))
    }

    /// The directory that the output goes to as far as it is the same for every profile, and
    /// whether that is all of it.
    pub fn directory(&self) -> (PathBuf, bool) {
        let mut directory = Path::new(&self.0).parent().unwrap_or(Path::new(""));
        let mut whole = true;
        loop {
            let template = Self(directory.as_os_str().to_owned());
            if let Some(path) = template.fixed() {
                return (if path.as_os_str().is_empty() { ".".into() } else { path }, whole);
            }
            whole = false;
            directory = directory.parent().unwrap_or(Path::new(""));
        }
    }

    /// The same template, a relative one taken from `base`, whatever directory a process is in
    /// when it writes.
    pub fn anchored(&self, base: &Path) -> Self {
        if Path::new(&self.0).is_absolute() || base.as_os_str().is_empty() {
            return self.clone();
        }
        let mut template = Vec::new();
        for byte in base.as_os_str().as_bytes() {
            template.push(*byte);
            if *byte == b'%' {
                template.push(b'%');
            }
        }
        if template.last() != Some(&b'/') {
            template.push(b'/');
        }
        template.extend_from_slice(self.0.as_bytes());
        Self(OsString::from_vec(template))
    }

    fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut rest = self.0.as_bytes();
        std::iter::from_fn(move || {
            let (piece, length) = match rest {
                [] => return None,
                [b'%', b'p', ..] => (Piece::Pid, 2),
                [b'%', b't', ..] => (Piece::Start, 2),
                [b'%', b'n', ..] => (Piece::Program, 2),
                [b'%', b'i', ..] => (Piece::Number, 2),
                [b'%', b'%', ..] => (Piece::Literal(b"%".as_slice()), 2),
                [b'%', ..] => {
                    let length = 1 + first_char_length(&rest[1..]);
                    (Piece::Unknown(&rest[..length]), length)
                }
                _ => {
                    let length = rest.iter().position(|byte| *byte == b'%').unwrap_or(rest.len());
                    (Piece::Literal(&rest[..length]), length)
                }
            };
            rest = &rest[length..];
            Some(piece)
        })
    }

    fn lossy(&self) -> String {
        self.0.to_string_lossy().escape_debug().to_string()
    }
}

enum Piece<'a> {
    Literal(&'a [u8]),
    Pid,
    Start,
    Program,
    Number,
    Unknown(&'a [u8]),
}

fn first_char_length(bytes: &[u8]) -> usize {
    let chunk = bytes.utf8_chunks().next();
    let first = chunk.and_then(|chunk| chunk.valid().chars().next());
    first.map_or(bytes.len().min(1), char::len_utf8)
}

/// `dir/name.0001.html` for `dir/name.html`.
fn with_number(path: &Path, number: u32) -> PathBuf {
    before_ending(path, &format!(".{number:04}"))
}

/// The same path with something added to the file's name, before its ending.
pub fn before_ending(path: &Path, addition: &str) -> PathBuf {
    let (stem, ending) = split_ending(path.file_name().unwrap_or_default());
    let mut name = stem.to_owned();
    name.push(addition);
    if !ending.is_empty() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

/// The same path with another ending of the file's name. What has a placeholder in it or begins
/// with a digit, as in `python3.14`, is not taken for one.
pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let (stem, old) = split_ending(name);
    let is_ending = old.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && old.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'.');
    let mut name = if is_ending { stem } else { name }.to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

/// Splits a file's name before its ending, which has more than one dot in it if that of a format
/// has, as `.trace.json`, and if it is packed. A name's first character is no ending's dot.
fn split_ending(name: &OsStr) -> (&OsStr, &OsStr) {
    let bytes = name.as_bytes();
    let unpacked = bytes.strip_suffix(b".gz").unwrap_or(bytes);
    let known = Format::ALL.into_iter().filter_map(|format| {
        let stem = stem(bytes, format.extension())?;
        (!stem.is_empty()).then_some(stem.len())
    });
    let last_dot = |name: &[u8]| name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0);
    match known.chain(last_dot(unpacked)).min().or_else(|| last_dot(bytes)) {
        Some(at) => (OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])),
        None => (name, OsStr::new("")),
    }
}

/// A program's name such that it can stand in a file name, and cannot lead out of the directory.
fn file_name_part(program: &str) -> String {
    let mut name = String::new();
    for c in program.chars() {
        if name.len() + c.len_utf8() > LONGEST_PROGRAM_NAME {
            break;
        }
        name.push(if c == '/' || is_hidden(c) { '_' } else { c });
    }
    if name.chars().all(|c| c == '.') { "_".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(template: &str, program: &str) -> PathBuf {
        OutputTemplate::new(template).unwrap().expand(42, 1_700_000_000_999_999_999, program, None)
    }

    #[test]
    fn placeholders() {
        assert_eq!(expand("/x/%n_%p.%t%%", "app"), Path::new("/x/app_42.1700000000%"));
        assert_eq!(expand("plain", "app"), Path::new("plain"));
    }

    #[test]
    fn numbers() {
        let numbered = |template: &str, number| {
            OutputTemplate::new(template).unwrap().expand(7, 0, "app", Some(number))
        };
        assert_eq!(numbered("d.x/%p.html", 1), Path::new("d.x/7.0001.html"));
        assert_eq!(numbered("d.x/plain", 12345), Path::new("d.x/plain.12345"));
        assert_eq!(numbered("%i/%p.html", 2), Path::new("0002/7.html"));
        assert_eq!(expand("%i.svg", "app"), Path::new("0001.svg"));
        let has_number = |template: &str| OutputTemplate::new(template).unwrap().has_number();
        assert!(has_number("%i") && !has_number("%%i"));
    }

    #[test]
    fn endings_are_replaced_where_they_are_endings() {
        for (template, expected) in [
            ("d.x/p.html", "d.x/p.svg"),
            ("p", "p.svg"),
            ("p.pstats", "p.svg"),
            ("p.trace.json.gz", "p.svg"),
            ("p.gz", "p.svg"),
            (".gz", ".gz.svg"),
            ("python3.14", "python3.14.svg"),
            ("p.%p", "p.%p.svg"),
            ("%n.prof", "%n.svg"),
            (".hidden", ".hidden.svg"),
        ] {
            let template = OutputTemplate::new(template).unwrap();
            assert_eq!(template.with_ending("svg").0, expected);
        }
    }

    #[test]
    fn program_names_stay_in_the_directory() {
        assert_eq!(expand("d/%n", "../../etc/passwd"), Path::new("d/.._.._etc_passwd"));
        assert_eq!(expand("d/%n", ".."), Path::new("d/_"));
        assert_eq!(expand("d/%n", ""), Path::new("d/_"));
        assert_eq!(expand("d/%n", "a\nb\0"), Path::new("d/a_b_"));
        assert_eq!(expand("%n", &"é".repeat(200)), Path::new(&"é".repeat(50)));
    }

    #[test]
    fn wrong_templates_are_explained() {
        let sentence = |template: &str| OutputTemplate::new(template).unwrap_err().to_string();
        assert!(sentence("a%d").contains("'%d'"), "{}", sentence("a%d"));
        assert!(sentence("a%é").contains("'%é'"));
        assert!(sentence("a%").contains("'%'"));
        assert!(sentence("dir/").contains("directory"));
        assert_eq!(OutputTemplate::new(""), Err(ConfigError::OutputEmpty));
        assert_eq!(OutputTemplate::new("a\0b"), Err(ConfigError::OutputNul));
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let path = OsString::from_vec(b"/x/\xff%%\xfe".to_vec());
        let expanded = OutputTemplate::new(path).unwrap().expand(1, 0, "", None);
        assert_eq!(expanded.as_os_str().as_bytes(), b"/x/\xff%\xfe");
        assert!(OutputTemplate::new(OsString::from_vec(b"%\xff".to_vec())).is_err());
    }

    #[test]
    fn the_fixed_part_of_the_directory() {
        let directory = |template: &str| OutputTemplate::new(template).unwrap().directory();
        assert_eq!(directory("/a/b/c"), ("/a/b".into(), true));
        assert_eq!(directory("/a/b%%/%p"), ("/a/b%".into(), true));
        assert_eq!(directory("/a/%n/b/%p"), ("/a".into(), false));
        assert_eq!(directory("%p"), (".".into(), true));
        assert_eq!(directory("%n/x"), (".".into(), false));
        assert_eq!(directory("/x"), ("/".into(), true));
    }

    #[test]
    fn relative_templates_are_anchored() {
        let anchored = |template: &str, base: &str| {
            OutputTemplate::new(template).unwrap().anchored(Path::new(base)).0
        };
        assert_eq!(anchored("x_%p", "/50%"), "/50%%/x_%p");
        assert_eq!(anchored("x", "/"), "/x");
        assert_eq!(anchored("/x", "/y"), "/x");
        assert_eq!(anchored("x", ""), "x");
    }

    #[test]
    fn which_templates_differ_by_process() {
        let template = |text: &str| OutputTemplate::new(text).unwrap();
        assert!(template("a%p").has_pid());
        assert!(!template("a%%p").has_pid());
        assert_eq!(template("a%%p").fixed(), Some("a%p".into()));
        assert_eq!(template("a%n").fixed(), None);
    }
}
