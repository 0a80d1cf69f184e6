//! speedscope and Perfetto: their own pages open the files, in a browser, and say what they have read.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use pysamp::export::Format;
use pysamp::profile::{Profile, Thread};
use serde_json::Value;

use crate::consumers::{consumer, printed, write_to};
use crate::sample::{self, Numbers3, Place, assert_same, numbers, places, shown, sums};

/// Runs one of the scripts beside this file; `None` where what it needs is not there.
fn viewer(script: &str, needs: &str, arguments: &[&Path]) -> Option<String> {
    let consumers = consumer(needs)?.parent()?.to_owned();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/viewers");
    let mut command = Command::new("node");
    command.arg(scripts.join(script)).arg(consumers).arg("/usr/bin/chromium").args(arguments);
    Some(printed(&mut command))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What a thread is called.
fn title(profile: &Profile, thread: &Thread) -> String {
    let name = if thread.name.is_empty() { "Thread" } else { &thread.name };
    let title = format!("{} ({})", shown(name), thread.tid);
    let process = profile.process(thread);
    match profile.processes.len() {
        1 => title,
        _ => format!("{} {}: {title}", shown(&process.program), process.pid),
    }
}

/// The weight of each stack in a file that speedscope saved: all slices are by then events in time.
fn saved(file: &Value, profile: &Value) -> BTreeMap<Vec<Place>, Numbers3> {
    let place = |event: &Value| {
        let frame = &file["shared"]["frames"][event["frame"].as_u64().unwrap() as usize];
        let text = |key: &str| frame[key].as_str().unwrap_or_default().to_owned();
        (text("file"), text("name"), frame["line"].as_u64().unwrap_or(0) as u32)
    };
    let mut stack = Vec::new();
    let mut before = 0;
    let mut rows = Vec::new();
    for event in profile["events"].as_array().unwrap() {
        let at = event["at"].as_u64().unwrap();
        if at > before {
            rows.push((stack.clone(), [0, at - before, 0]));
        }
        before = at;
        match event["type"].as_str() {
            Some("O") => stack.push(place(event)),
            _ => assert_eq!(stack.pop(), Some(place(event))),
        }
    }
    assert_eq!(
        profile["endValue"].as_u64().unwrap() - profile["startValue"].as_u64().unwrap(),
        before
    );
    sums(rows)
}

fn only_wall(numbers: Numbers3) -> Numbers3 {
    [0, numbers[1], 0]
}

#[test]
fn speedscope_reads_every_weight() {
    let folder = tempfile::tempdir().unwrap();
    let (into, everything) = (folder.path(), sample::everything());
    let file = |name: &str| folder.path().join(name);
    let files =
        ["all.speedscope.json", "one.speedscope.json", "all.pb.gz", "all.callgrind"].map(file);
    let [all, one, pprof, callgrind] = &files;
    write_to(all, Format::Speedscope, &everything);
    write_to(one, Format::Speedscope, &sample::plain());
    write_to(pprof, Format::Pprof, &everything);
    write_to(callgrind, Format::Callgrind, &everything);
    let arguments = [&[into][..], &files.each_ref().map(|path| path.as_path())].concat();
    if viewer("speedscope.mjs", "npm", &arguments).is_none() {
        return;
    }
    let read = |path: &Path| {
        json(&path.with_file_name(format!("{}.read", path.file_name().unwrap().display())))
    };

    for (path, profile) in [(all, &everything), (one, &sample::plain())] {
        let read = read(path);
        let threads: Vec<_> = read["profiles"].as_array().unwrap().iter().collect();
        assert_eq!(threads.len(), profile.threads.len());
        for (index, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread["name"], title(profile, &profile.threads[index]));
            assert_eq!(thread["unit"], "nanoseconds");
            let samples = profile.samples.iter().filter(|sample| sample.thread.0 as usize == index);
            let rows = samples.map(|sample| (places(profile, sample), only_wall(numbers(sample))));
            let expected = sums(rows);
            assert_same(&saved(&read, thread), &expected);
        }
    }

    // What it reads of the others' formats.
    let read_pprof = read(pprof);
    let rows = everything.samples.iter().map(|sample| {
        let mut stack = places(&everything, sample);
        let nameless = stack.iter_mut().filter(|(_, name, _)| name.is_empty());
        nameless.for_each(|(_, name, _)| *name = "(unknown)".to_owned());
        (stack, only_wall(numbers(sample)))
    });
    assert_same(&saved(&read_pprof, &read_pprof["profiles"][0]), &sums(rows));
    let read_callgrind = read(callgrind);
    let sum = |key: fn(Numbers3) -> u64| {
        everything.samples.iter().map(|sample| key(numbers(sample))).sum::<u64>()
    };
    let totals = [sum(|all| all[0]), sum(|all| all[1]), sum(|all| all[2])];
    for (event, total) in totals.into_iter().enumerate() {
        assert_eq!(read_callgrind["profiles"][event]["endValue"], total);
    }
}

/// What Perfetto says of a slice.
struct Slice {
    thread: (u64, u64, String),
    parent: Option<usize>,
    name: String,
    numbers: [u64; 2],
}

#[test]
fn perfetto_reads_every_sample() {
    let profile = sample::everything();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.trace.json");
    write_to(&path, Format::Chrome, &profile);
    let Some(said) = viewer("perfetto.mjs", "perfetto", &[&path]) else { return };
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["wrong"], serde_json::json!([]));
    // This Perfetto takes JSON's backslashes away only where there is a quote.
    let text = |value: &Value| match value.as_str() {
        Some("[No name]") | None => String::new(),
        Some(text) if text.contains('"') => text.to_owned(),
        Some(text) => text.replace(r"\\", r"\"),
    };
    let slices: Vec<Slice> = said["slices"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, slice)| {
            // Numbered in order of their beginning.
            assert_eq!(slice["id"].as_u64(), Some(index as u64));
            let [pid, tid, samples, ns] =
                ["pid", "tid", "samples", "dur"].map(|key| slice[key].as_u64().unwrap());
            Slice {
                // Where an id is in use a multiple of this is added.
                thread: (pid, tid % (1 << 22), text(&slice["thread"])),
                parent: slice["parent"].as_u64().map(|parent| parent as usize),
                name: format!("{}:{}", text(&slice["file"]), text(&slice["name"])),
                numbers: [samples, ns],
            }
        })
        .collect();
    let mut own: Vec<[i64; 2]> =
        slices.iter().map(|slice| slice.numbers.map(|n| n as i64)).collect();
    for slice in &slices {
        if let Some(parent) = slice.parent {
            own[parent].iter_mut().zip(slice.numbers).for_each(|(own, part)| *own -= part as i64);
        }
    }
    let mut read: BTreeMap<_, Numbers3> = sums(slices.iter().zip(own).map(|(slice, own)| {
        let callers = std::iter::successors(Some(slice), |slice| Some(&slices[slice.parent?]));
        let stack: Vec<&str> = callers.map(|slice| slice.name.as_str()).collect();
        let [samples, ns] = own.map(|own| u64::try_from(own).unwrap());
        ((slice.thread.clone(), stack.join("\n")), [samples, ns, 0])
    }));
    read.retain(|_, numbers| numbers[0] > 0);

    let expected = sums(profile.samples.iter().map(|sample| {
        let thread = profile.thread(sample.thread);
        let name = match &*thread.name {
            "" => format!("Thread {}", thread.tid),
            name => shown(name),
        };
        let thread = (profile.process(thread).pid.into(), thread.tid.into(), name);
        let stack: Vec<String> = profile
            .leaf_first(sample.stack)
            .map(|frame| {
                let function = profile.function(frame);
                let file = match &*function.file {
                    "~" | "<task>" => "",
                    file => file,
                };
                format!("{}:{}", shown(file), shown(&function.name))
            })
            .collect();
        ((thread, stack.join("\n")), [sample.count, sample.weight_ns, 0])
    }));
    assert_same(&read, &expected);
}
