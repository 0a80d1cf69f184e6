//! Escapes for names that go where a line break, a terminal sequence or a separator would do harm.
//!
//! A Python name can hold anything: `type()` and `code.replace()` take any string.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes what does not show as itself, and `separator` where there is one.
///
/// The escapes are those of a Python string literal (`\\`, `\n`, `\x3b`, `\u2028`, `\U000e0001`), so that
/// they read back; a name without any is borrowed as it is.
pub(super) fn escape(text: &str, separator: Option<char>) -> Cow<'_, str> {
    escape_if(text, |c| c == '\\' || Some(c) == separator || is_hidden(c))
}

/// A text as one line for a terminal: as it is, but for what does not show as itself.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escape_if(text, is_hidden)
}

/// JSON that cannot end the script element it is in. Angle brackets are in its strings only.
pub(super) fn script_json(value: &serde_json::Value) -> String {
    value.to_string().replace('<', r"\u003c").replace('>', r"\u003e")
}

fn escape_if(text: &str, special: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&special) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match c {
            c if !special(c) => escaped.write_char(c),
            '\\' => escaped.write_str(r"\\"),
            '\n' => escaped.write_str(r"\n"),
            '\r' => escaped.write_str(r"\r"),
            '\t' => escaped.write_str(r"\t"),
            c => match u32::from(c) {
                code @ ..=0xff => write!(escaped, r"\x{code:02x}"),
                code @ ..=0xffff => write!(escaped, r"\u{code:04x}"),
                code => write!(escaped, r"\U{code:08x}"),
            },
        };
    }
    Cow::Owned(escaped)
}

/// Control and format characters: they break lines, drive terminals, reorder text or show as nothing.
/// The last two of the basic plane are forbidden in XML besides.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescape(text: &str) -> String {
        let mut chars = text.chars();
        let mut plain = String::new();
        while let Some(c) = chars.next() {
            if c != '\\' {
                plain.push(c);
                continue;
            }
            let digits = match chars.next().unwrap() {
                '\\' => {
                    plain.push('\\');
                    continue;
                }
                'n' => {
                    plain.push('\n');
                    continue;
                }
                'r' => {
                    plain.push('\r');
                    continue;
                }
                't' => {
                    plain.push('\t');
                    continue;
                }
                'x' => 2,
                'u' => 4,
                'U' => 8,
                other => panic!("no escape: {other}"),
            };
            let hex: String = chars.by_ref().take(digits).collect();
            plain.push(char::from_u32(u32::from_str_radix(&hex, 16).unwrap()).unwrap());
        }
        plain
    }

    #[test]
    fn ordinary_names_are_untouched() {
        for name in ["<listcomp>", "A.f.<locals>.<lambda>", "été", "関数", "a b", "{x}"] {
            assert!(matches!(escape(name, Some(';')), Cow::Borrowed(same) if same == name));
        }
    }

    #[test]
    fn each_kind_of_escape() {
        assert_eq!(escape("a;b\n\x1b[31m\\", Some(';')), r"a\x3bb\n\x1b[31m\\");
        assert_eq!(
            escape("\r\t\u{85}\u{2028}\u{202e}\u{e0001}", None),
            r"\r\t\x85\u2028\u202e\U000e0001"
        );
        assert_eq!(escape("a;b", None), "a;b");
    }

    #[test]
    fn lines_keep_their_backslashes() {
        assert_eq!(one_line(r"C:\x 'é'"), r"C:\x 'é'");
        assert_eq!(one_line("a\n\x1b[2J\u{202e}b"), r"a\n\x1b[2J\u202eb");
    }

    proptest! {
        #[test]
        fn reads_back_and_stays_on_a_line(name in any::<String>()) {
            let escaped = escape(&name, Some(';'));
            prop_assert!(!escaped.contains(|c: char| c == ';' || is_hidden(c)));
            prop_assert_eq!(unescape(&escaped), name);
        }
    }
}
