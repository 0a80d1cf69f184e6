//! Firefox Profiler's processed format: threads as time lines, with what state they were in.
//!
//! Version 60 is the first in which all threads share one table of stacks, as they do here; viewers
//! bring older versions up to their own. Nothing that is as long as the recording is ever in memory
//! as a whole.

mod json;
mod markers;
mod moments;
mod opcodes;
mod tables;

use self::json::{Cell, Json};
use self::markers::Markers;
use self::moments::Moments;
use self::tables::{Category, Tables};
use super::one_line;
use crate::profile::{Meta, Process, Profile, Thread, ThreadId};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Write};

/// The version of the format.
const VERSION: u32 = 60;
/// The version of the browser's own format to which that belongs.
const BROWSER_VERSION: u32 = 31;
/// A marker that has a start and an end.
const INTERVAL: u64 = 1;

/// Writes the profile.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let tables = Tables::new(profile);
    let mut moments = Moments::new(profile);
    let mut json = Json::new(out);
    json.raw("{\"meta\":")?;
    json.value(&meta(profile, &tables))?;
    json.raw(",\"libs\":[],\"pages\":[],\"shared\":")?;
    tables.write(&mut json)?;
    json.raw(",\"threads\":[")?;
    let pids = pids(profile);
    for (thread, id) in profile.threads.iter().zip((0..).map(ThreadId)) {
        if id.0 > 0 {
            json.raw(",\n")?;
        }
        moments.turn_to(id);
        let mut head = head(profile, thread, &pids[thread.process.0 as usize]);
        let extent = moments.extent(id);
        head["registerTime"] = ms(extent.start_us).into();
        head["unregisterTime"] = ms(extent.end_us).into();
        let head = head.to_string();
        json.raw(head.trim_end_matches('}'))?;
        write_samples(&tables, &moments, id, &mut json)?;
        write_markers(&tables, &moments, id, &mut json)?;
        json.raw("}")?;
    }
    json.raw("]}\n")?;
    json.finish()
}

fn write_samples(
    tables: &Tables<'_>,
    moments: &Moments<'_>,
    thread: ThreadId,
    json: &mut Json<'_>,
) -> io::Result<()> {
    let rows = || moments.rows(thread).flat_map(moments::Row::ends);
    let mut stacks = rows().map(|row| Cell::Number(tables.stack_of[row.sample].into()));
    let mut passed_us = 0;
    let mut passed = rows().map(|row| {
        let since_us = row.end_us.saturating_sub(passed_us);
        passed_us += since_us;
        Cell::Ms(since_us)
    });
    let mut weights = rows().map(|row| Cell::Number(row.count));
    let mut cpu = rows().map(|row| Cell::Number(row.cpu_us));
    json.table(
        ",\"samples\":{\"weightType\":\"samples\"",
        &mut [
            ("stack", &mut stacks),
            ("timeDeltas", &mut passed),
            ("weight", &mut weights),
            ("threadCPUDelta", &mut cpu),
        ],
    )
}

fn write_markers(
    tables: &Tables<'_>,
    moments: &Moments<'_>,
    thread: ThreadId,
    json: &mut Json<'_>,
) -> io::Result<()> {
    let opcodes = &tables.opcodes;
    let markers = || Markers::new(moments.rows(thread), opcodes, tables.interval_us());
    let mut names = markers().map(|marker| Cell::Number(marker.name(opcodes).into()));
    let mut starts = markers().map(|marker| Cell::Ms(marker.start_us));
    let mut ends = markers().map(|marker| Cell::Ms(marker.end_us));
    let mut categories = markers().map(|marker| marker.category().cell());
    let mut data = markers().map(|marker| marker.data(opcodes));
    json.table(
        ",\"markers\":{",
        &mut [
            ("name", &mut names),
            ("startTime", &mut starts),
            ("endTime", &mut ends),
            ("category", &mut categories),
            ("data", &mut data),
            ("phase", &mut markers().map(|_| Cell::Number(INTERVAL))),
        ],
    )
}

fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

/// What is known of a thread besides its samples.
fn head(profile: &Profile, thread: &Thread, pid: &str) -> Value {
    let process = profile.process(thread);
    let start_ns = process.start_unix_ns.saturating_sub(profile.meta.start_unix_ns);
    let end_ns = start_ns.saturating_add(process.duration_ns);
    let name = match &*one_line(&thread.name) {
        "" => format!("Thread {}", thread.tid),
        name => name.to_owned(),
    };
    json!({
        "name": match thread.interpreter {
            0 => name,
            number => format!("{name} (interpreter {number})"),
        },
        "isMainThread": thread.is_main && thread.interpreter == 0,
        "pid": pid,
        "tid": thread.tid,
        "processType": "default",
        "processName": one_line(&process.program),
        "processStartupTime": ms(start_ns / 1_000),
        "processShutdownTime": ms(end_ns / 1_000),
        "pausedRanges": [],
    })
}

/// How each process is called: two of a profile may have had the same id, one after the other.
fn pids(profile: &Profile) -> Vec<String> {
    let mut seen = HashMap::new();
    let pids = profile.processes.iter().map(|process| {
        let before = seen.entry(process.pid).or_insert(0_u32);
        *before += 1;
        match *before {
            1 => process.pid.to_string(),
            again => format!("{}.{}", process.pid, again - 1),
        }
    });
    pids.collect()
}

fn meta(profile: &Profile, tables: &Tables<'_>) -> Value {
    let meta = &profile.meta;
    let end_ns = profile.processes.iter().map(|process| {
        let start_ns = process.start_unix_ns.saturating_sub(meta.start_unix_ns);
        start_ns.saturating_add(process.duration_ns)
    });
    let end_ns = end_ns.max().unwrap_or(meta.duration_ns);
    json!({
        "interval": meta.interval_ns as f64 / 1e6,
        "startTime": meta.start_unix_ns as f64 / 1e6,
        "profilingStartTime": 0,
        "profilingEndTime": ms(end_ns / 1_000),
        "product": one_line(&meta.program),
        "importedFrom": "pysamp",
        "arguments": one_line(&meta.command.join(" ")),
        "platform": "Linux",
        "oscpu": format!("Linux {}", std::env::consts::ARCH),
        "processType": 0,
        "stackwalk": 0,
        "version": BROWSER_VERSION,
        "preprocessedProfileVersion": VERSION,
        "symbolicated": true,
        "symbolicationNotSupported": true,
        "sourceCodeIsNotOnSearchfox": true,
        "usesOnlyOneStackType": tables.is_of_one_kind(),
        "keepProfileThreadOrder": true,
        "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
        "categories": Category::all(tables.opcodes.is_any()),
        "markerSchema": markers::schema(tables.opcodes.is_any()),
        "extra": [sampling(meta), processes(profile)],
    })
}

/// How well it went, for the panel with information.
fn sampling(meta: &Meta) -> Value {
    let share =
        |label: &str, share: f64| json!({"label": label, "format": "percentage", "value": share});
    json!({
        "label": "Sampling",
        "entries": [
            {"label": "Samples", "format": "integer", "value": meta.samples},
            share("Failed samples", meta.failed_share()),
            share("Missed samples", meta.missed_share()),
        ],
    })
}

fn processes(profile: &Profile) -> Value {
    let row = |(process, pid): (&Process, &String)| {
        let what = format!("{}: {}", process.python, process.command.join(" "));
        json!({"label": format!("Process {pid}"), "format": "string", "value": one_line(&what)})
    };
    let pids = pids(profile);
    let rows: Vec<Value> = profile.processes.iter().zip(&pids).map(row).collect();
    json!({"label": "Processes", "entries": rows})
}
