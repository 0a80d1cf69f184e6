//! The few lines of source around what was sampled, where they can be read: hottest first, within bounds.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::export::one_line;

/// Lines shown before and behind one that was sampled.
const AROUND: u32 = 3;
/// Characters of a line.
const MOST_WIDE: usize = 200;
/// Characters in all.
const BUDGET: usize = 160_000;
/// Bytes of a file, and of all that are read.
const MOST_FILE: u64 = 4 << 20;
const MOST_READ: u64 = 16 << 20;

/// Lines of a file.
struct Excerpt {
    text: String,
    /// Where each line begins.
    starts: Vec<usize>,
    /// The file is newer than the profile.
    is_newer: bool,
    shown: BTreeMap<u32, String>,
}

impl Excerpt {
    /// A line, as it is to be shown.
    fn line(&self, number: u32) -> Option<String> {
        let start = *self.starts.get(number.checked_sub(1)? as usize)?;
        let line = self.text[start..].split('\n').next()?;
        let line = line.trim_end().replace('\t', "        ");
        Some(one_line(&line.chars().take(MOST_WIDE).collect::<String>()).into_owned())
    }
}

/// The excerpts of files: their names, whether they have changed since `end_unix_ns`, and numbered
/// lines in order. `wanted` are lines that were sampled, hottest first.
pub(super) fn excerpts<'a>(
    wanted: impl Iterator<Item = (&'a str, u32)>,
    end_unix_ns: u64,
) -> Vec<(&'a str, Value)> {
    let mut files: HashMap<&str, Option<Excerpt>> = HashMap::new();
    let mut order = Vec::new();
    let (mut left, mut unread) = (BUDGET, MOST_READ);
    for (file, line) in wanted {
        let excerpt = files.entry(file).or_insert_with(|| {
            order.push(file);
            read(file, end_unix_ns, &mut unread)
        });
        let Some(excerpt) = excerpt else { continue };
        for number in line.saturating_sub(AROUND).max(1)..=line.saturating_add(AROUND) {
            if excerpt.shown.contains_key(&number) {
                continue;
            }
            let Some(line) = excerpt.line(number) else { break };
            left = left.saturating_sub(line.len() + 8);
            excerpt.shown.insert(number, line);
        }
        if left == 0 {
            break;
        }
    }
    let excerpts = order.into_iter().filter_map(|file| {
        let excerpt = files.remove(file)??;
        let lines: Vec<Value> =
            excerpt.shown.iter().map(|(number, line)| json!([number, line])).collect();
        (!lines.is_empty()).then(|| (file, json!([excerpt.is_newer, lines])))
    });
    excerpts.collect()
}

fn read(file: &str, end_unix_ns: u64, unread: &mut u64) -> Option<Excerpt> {
    let (text, is_newer) = contents(file, end_unix_ns, unread).ok()?;
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    Some(Excerpt { text, starts, is_newer, shown: BTreeMap::new() })
}

/// Why there is no source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) enum Missing {
    /// The file is not there, or is no text that may be read.
    Unreadable,
    /// It is more than is read of one file, or of all.
    TooMuch,
}

/// The text of a regular file, and whether it has changed since `end_unix_ns`. What a code object
/// names can be anything: a device, a pipe, a whole disk. `unread` is how much may still be read.
pub(in crate::export) fn contents(
    file: &str,
    end_unix_ns: u64,
    unread: &mut u64,
) -> Result<(String, bool), Missing> {
    let unreadable = |_| Missing::Unreadable;
    let most = MOST_FILE.min(*unread);
    let check = |facts: &std::fs::Metadata| match facts.len() {
        _ if !facts.is_file() => Err(Missing::Unreadable),
        length if length > most => Err(Missing::TooMuch),
        length => Ok(length),
    };
    if file.starts_with('<') {
        return Err(Missing::Unreadable);
    }
    check(&std::fs::metadata(file).map_err(unreadable)?)?;
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file);
    let opened = opened.map_err(unreadable)?;
    let facts = opened.metadata().map_err(unreadable)?;
    let length = check(&facts)?;
    let mut bytes = Vec::new();
    opened.take(length).read_to_end(&mut bytes).map_err(unreadable)?;
    *unread -= bytes.len() as u64;
    if bytes.contains(&0) {
        return Err(Missing::Unreadable);
    }
    let is_newer = facts
        .modified()
        .is_ok_and(|modified| modified > UNIX_EPOCH + Duration::from_nanos(end_unix_ns));
    Ok((String::from_utf8_lossy(&bytes).into_owned(), is_newer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> u64 {
        UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
    }

    #[test]
    fn lines_around_what_was_sampled() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.py");
        let text: Vec<String> = (1..=30).map(|line| format!("\tline {line} \u{2028}.")).collect();
        std::fs::write(&file, text.join("\n")).unwrap();
        let file = file.to_str().unwrap();
        let later = now() + 60_000_000_000;
        let found =
            excerpts([(file, 2), (file, 30), (file, 99), ("/dev/zero", 1)].into_iter(), later);
        let [(name, excerpt)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((*name, &excerpt[0]), (file, &json!(false)));
        let numbers: Vec<_> = excerpt[1].as_array().unwrap().iter().map(|line| &line[0]).collect();
        assert_eq!(json!(numbers), json!([1, 2, 3, 4, 5, 27, 28, 29, 30]));
        assert_eq!(excerpt[1][1][1], "        line 2 \\u2028.");
        assert_eq!(excerpts([(file, 2)].into_iter(), 1)[0].1[0], json!(true));
    }

    #[test]
    fn within_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.py");
        std::fs::write(&file, format!("{}\n", "x".repeat(5_000)).repeat(800)).unwrap();
        let file = file.to_str().unwrap();
        let found = excerpts((1..=800).map(|line| (file, line)), now());
        let size = found[0].1.to_string().len();
        assert!((BUDGET..BUDGET * 11 / 10).contains(&size), "{size}");
        std::fs::write(file, vec![b'\n'; MOST_FILE as usize + 1]).unwrap();
        assert!(excerpts([(file, 1)].into_iter(), now()).is_empty());
        let missing = |unread: u64| contents(file, now(), &mut { unread }).unwrap_err();
        assert_eq!(missing(u64::MAX), Missing::TooMuch);
        std::fs::write(file, "a\0b").unwrap();
        assert!(excerpts([(file, 1)].into_iter(), now()).is_empty());
        assert_eq!([missing(3), missing(2)], [Missing::Unreadable, Missing::TooMuch]);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe.py");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(excerpts([(pipe.to_str().unwrap(), 1)].into_iter(), now()).is_empty());
    }
}
