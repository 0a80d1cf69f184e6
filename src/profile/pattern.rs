//! Patterns by which functions, threads and processes are chosen.

use std::fmt;
use std::str::FromStr;

use super::Function;

/// A name in which `*` stands for anything, `?` for any character and `[abc]` for one of some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(glob::Pattern);

impl Pattern {
    /// Whether the whole of a text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
    }

    /// Whether a function's name, its last part, its file's path or the file's name matches.
    pub fn matches_function(&self, function: &Function) -> bool {
        let last = |text: &str, separator| {
            text.rsplit(separator).next().is_some_and(|last| self.matches(last))
        };
        let (file, name) = (&*function.file, &*function.name);
        self.matches(name) || self.matches(file) || last(name, '.') || last(file, '/')
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a pattern: {why}; write a name in which * stands for anything")]
pub struct BadPattern {
    text: String,
    why: &'static str,
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = |why| BadPattern { text: text.escape_debug().to_string(), why };
        match glob::Pattern::new(text) {
            _ if text.is_empty() => Err(bad("it is empty")),
            Ok(pattern) => Ok(Self(pattern)),
            Err(error) if error.msg.starts_with("invalid range") => Err(bad("a '[' has no ']'")),
            Err(_) => Err(bad("'**' stands for whole directories only")),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn functions_are_known_by_name_and_file() {
        let function =
            Function { file: "/app/pkg/mod.py".into(), name: "A.run".into(), first_line: 7 };
        for text in ["A.run", "run", "A.*", "mod.py", "/app/*", "*/pkg/*", "r?n", "[rs]un"] {
            assert!(pattern(text).matches_function(&function), "{text}");
        }
        for text in ["A", "un", "mod", "pkg", "RUN", "/app", "r?"] {
            assert!(!pattern(text).matches_function(&function), "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_explained() {
        let sentence = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
        let end = "; write a name in which * stands for anything";
        assert_eq!(sentence(""), format!("'' is not a pattern: it is empty{end}"));
        assert_eq!(sentence("a["), format!("'a[' is not a pattern: a '[' has no ']'{end}"));
        let directories = "'**' stands for whole directories only";
        assert_eq!(sentence("a**"), format!("'a**' is not a pattern: {directories}{end}"));
    }
}
