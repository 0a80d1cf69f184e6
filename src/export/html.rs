//! The flame graph as one self-contained page: the profile as JSON, and a script that draws it.

use super::aggregate::{Groups, Tree};
use super::one_line;
use crate::profile::{Function, Numbers, Profile, Thread};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Write};

const PAGE: &str = include_str!("web/flamegraph.html");
const STYLE: &str = include_str!("web/flamegraph.css");
const SCRIPT: &str = include_str!("web/flamegraph.js");

/// Writes the page.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    // The page's template alternates text and the name of what goes there.
    let mut parts = PAGE.split("@@");
    while let Some(text) = parts.next() {
        out.write_all(text.as_bytes())?;
        match parts.next() {
            Some("title") => {
                out.write_all(html_text(&one_line(&profile.meta.program)).as_bytes())?
            }
            Some("style") => out.write_all(STYLE.as_bytes())?,
            Some("script") => out.write_all(SCRIPT.as_bytes())?,
            Some("data") => write_data(profile, out)?,
            _ => {}
        }
    }
    Ok(())
}

/// Writes the profile as JSON, with names as they are to be shown. Tables of several columns are flat, and refer to each other by row.
fn write_data(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut strings = Numbers::default();
    let functions: Vec<u32> = profile
        .functions
        .iter()
        .flat_map(|Function { file, name, first_line }| {
            [strings.of(&**file), strings.of(&**name), *first_line]
        })
        .collect();
    let groups = Groups::new(profile, |frame| (frame.function.0, frame.location.line));
    let lines: Vec<u32> =
        groups.keys.iter().flat_map(|&(function, line)| [function, line]).collect();
    let tree = Tree::new(profile, &groups.of_frame);
    let mut samples: HashMap<(u32, u32), [u64; 2]> = HashMap::new();
    for sample in &profile.samples {
        let key = (sample.thread.0, tree.of_stack[sample.stack.0 as usize]);
        let [count, ns] = samples.entry(key).or_default();
        *count = count.saturating_add(sample.count);
        *ns = ns.saturating_add(sample.weight_ns);
    }
    let mut samples: Vec<[u64; 4]> = samples
        .into_iter()
        .map(|((thread, node), [count, ns])| [thread.into(), node.into(), count, ns])
        .collect();
    samples.sort_unstable();

    write!(out, "{{\"meta\":{},\n\"threads\":{},\n", meta(profile), threads(profile))?;
    write!(out, "\"strings\":{},\n\"functions\":", script_json(&shown(strings.keys.iter())))?;
    serde_json::to_writer(&mut *out, &functions)?;
    write!(out, ",\n\"lines\":")?;
    serde_json::to_writer(&mut *out, &lines)?;
    write!(out, ",\n\"parents\":")?;
    serde_json::to_writer(&mut *out, &tree.parent[1..])?;
    write!(out, ",\n\"lineOf\":")?;
    serde_json::to_writer(&mut *out, &tree.group[1..])?;
    write!(out, ",\n\"samples\":")?;
    serde_json::to_writer(&mut *out, samples.as_flattened())?;
    write!(out, "}}")
}

fn meta(profile: &Profile) -> String {
    let meta = &profile.meta;
    script_json(&json!({
        "program": one_line(&meta.program),
        "command": shown(meta.command.iter()),
        "pid": meta.pid,
        "python": meta.python,
        "startMs": meta.start_unix_ns / 1_000_000,
        "durationNs": meta.duration_ns,
        "intervalNs": meta.interval_ns,
        "ticks": meta.ticks,
        "samples": meta.samples,
        "failedShare": meta.failed_share(),
        "missedShare": meta.missed_share(),
    }))
}

fn threads(profile: &Profile) -> String {
    let threads = profile.threads.iter();
    let row = |thread: &Thread| json!([thread.tid, one_line(&thread.name), thread.is_main]);
    script_json(&threads.map(row).collect())
}

fn shown(texts: impl Iterator<Item = impl AsRef<str>>) -> Value {
    texts.map(|text| json!(one_line(text.as_ref()))).collect()
}

/// JSON that cannot end the script element it is in. Angle brackets are in its strings only.
fn script_json(value: &Value) -> String {
    value.to_string().replace('<', r"\u003c").replace('>', r"\u003e")
}

fn html_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, profile, sample, text};
    use crate::profile::ThreadId;
    use proptest::prelude::*;

    fn page(profile: &Profile) -> String {
        text(|out| write(profile, out))
    }

    fn data(page: &str) -> Value {
        let (_, rest) = page.split_once(r#"<script type="application/json" id="data">"#).unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }

    #[test]
    fn golden_data() {
        let mut profile = profile(&[("main:1 f:2", 30), ("main:1 f:3", 10)]);
        add(&mut profile, 7, &[("main:1", 60)]);
        let data = data(&page(&profile));
        assert_eq!(data["threads"], json!([[42, "", false], [7, "", false]]));
        assert_eq!(data["strings"], json!(["/app/t.py", "main", "f"]));
        assert_eq!(data["functions"], json!([0, 1, 0, 0, 2, 0]));
        assert_eq!(data["lines"], json!([0, 1, 1, 2, 1, 3]));
        assert_eq!(data["parents"], json!([0, 1, 1]));
        assert_eq!(data["lineOf"], json!([0, 1, 2]));
        assert_eq!(
            data["samples"],
            json!([0, 2, 30, 30_000_000, 0, 3, 10, 10_000_000, 1, 1, 60, 60_000_000])
        );
        assert_eq!(data["meta"]["pid"], 4242);
    }

    #[test]
    fn needs_nothing_from_elsewhere() {
        let page = page(&profile(&[("main:1", 1)]));
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("@@"));
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
        assert!(!SCRIPT.contains("innerHTML"));
    }

    proptest! {
        #[test]
        fn names_cannot_break_out(name in r#"(<|>|/|script|!--|]]>|"|'|\\|&|@@|\u{2028}|\PC|\x00){0,12}"#) {
            let mut profile = profile(&[]);
            let elements = |page: &str| page.matches('<').count();
            let plain = elements(&page(&profile));
            sample(&mut profile, ThreadId(0), [(name.as_str(), name.as_str(), 1)], 1);
            profile.meta.program = name.clone();
            profile.meta.command = vec![name.clone()];
            profile.threads[0].name = name.as_str().into();
            let page = page(&profile);
            prop_assert_eq!(elements(&page), plain);
            let data = data(&page);
            let name = json!(one_line(&name));
            prop_assert_eq!(&data["strings"][0], &name);
            prop_assert_eq!(&data["threads"][0][1], &name);
            prop_assert_eq!(&data["meta"]["program"], &name);
            prop_assert_eq!(&data["meta"]["command"][0], &name);
        }
    }
}
