//! callgrind: what `callgrind_annotate` says of a file.

use std::collections::{BTreeMap, HashSet};
use std::process::Command;

use pysamp::export::Format;
use pysamp::profile::{Profile, Sample, Thread};

use crate::consumers::{consumer, printed, write_to};
use crate::sample::{self, Numbers3, numbers, places, sums};

/// A function as the tool names it.
fn function(file: &str, name: &str, is_synthetic: bool) -> String {
    let quoted = |text: &str| if text.is_empty() { "''".to_owned() } else { text.to_owned() };
    let file = if is_synthetic { "???".to_owned() } else { quoted(file) };
    format!("{file}:{}", quoted(name))
}

fn thread(profile: &Profile, thread: &Thread) -> String {
    let process = profile.process(thread);
    let name = if thread.name.is_empty() { "Thread" } else { &thread.name };
    let title = format!("{} ({})", sample::shown(name), thread.tid);
    match profile.processes.len() {
        1 => format!("???:{title}"),
        _ => format!("???:{} {}: {title}", sample::shown(&process.program), process.pid),
    }
}

/// The three numbers of each row with anything in it.
fn rows(text: &str) -> BTreeMap<String, Numbers3> {
    let (_, table) = text.split_once("file:function\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| !line.is_empty()).filter_map(|line| {
        let mut rest = line;
        let numbers = [0; 3].map(|_: u64| {
            let (number, after) = rest.trim_start().split_once(' ').unwrap();
            rest = after.trim_start();
            if let Some(share) = rest.strip_prefix('(').filter(|_| number != ".") {
                rest = share.split_once(')').unwrap().1;
            }
            number.replace(',', "").parse().unwrap_or(0)
        });
        (numbers != [0; 3]).then(|| (rest.trim_start().to_owned(), numbers))
    });
    sums(rows)
}

fn check(tool: &std::path::Path, profile: &Profile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.callgrind");
    write_to(&path, Format::Callgrind, profile);
    let annotate = |options: &[&str]| {
        let all = ["--threshold=100", "--auto=no", "--show-percs=yes"];
        printed(Command::new("perl").arg(tool).args(all).args(options).arg(&path))
    };
    let stack = |sample: &Sample| -> Vec<String> {
        let frames = profile.root_first(sample.stack).into_iter();
        let is_synthetic = frames.map(|frame| &*profile.function(frame).file == "~");
        let places = places(profile, sample).into_iter().zip(is_synthetic);
        places.map(|((file, name, _), is_synthetic)| function(&file, &name, is_synthetic)).collect()
    };
    let own =
        sums(profile.samples.iter().map(|sample| (stack(sample).pop().unwrap(), numbers(sample))));
    assert_eq!(rows(&annotate(&[])), own);

    let inclusive = sums(profile.samples.iter().flat_map(|sample| {
        let on_stack: HashSet<String> = stack(sample).into_iter().collect();
        let root = thread(profile, profile.thread(sample.thread));
        on_stack.into_iter().chain([root]).map(|name| (name, numbers(sample)))
    }));
    assert_eq!(rows(&annotate(&["--inclusive=yes"])), inclusive);
}

#[test]
fn callgrind_annotate_agrees_to_the_sample() {
    let Some(tool) = consumer("callgrind_annotate") else { return };
    check(&tool, &sample::plain());
    check(&tool, &sample::everything());
}
