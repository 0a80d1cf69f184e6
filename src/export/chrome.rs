//! The trace that Perfetto and `chrome://tracing` read: when each function was seen on which thread.
//!
//! Samples one after the other whose stacks begin with the same functions are one slice of each of these.
//! Where a slice begins and where it ends are events of their own, so that nothing is held back; the latter
//! has the samples in it. Times are in microseconds since the start. A pause of a thread that is no longer
//! than the sampling interval ends no slice: in some modes not all of the time counts.

use super::aggregate::{Groups, Tree};
use super::{json_text, one_line};
use crate::profile::{Function, FunctionId, Profile, ThreadId};
use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

/// Added to the id of a thread where another has it at the same time. No real one is as large.
const ANOTHER: u64 = 1 << 22;

/// Writes the trace.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let groups = Groups::new(profile, |frame| frame.function);
    let tree = Tree::new(profile, &groups.of_frame);
    let slice = |id: &FunctionId| slice(&profile.functions[id.0 as usize]);
    let mut trace = Trace {
        out: BufWriter::with_capacity(1 << 16, out),
        tree: &tree,
        slices: groups.keys.iter().map(slice).collect(),
        comma: "",
    };
    trace.head(profile)?;
    let mut tracks: Vec<Option<Track>> = profile.threads.iter().map(|_| None).collect();
    let mut owners: HashMap<(u32, u64), usize> = HashMap::new();
    for moment in profile.moments() {
        let sample = &profile.samples[moment.sample];
        let start_ns = moment.at_ns.saturating_sub(moment.weight_ns);
        let index = sample.thread.0 as usize;
        if tracks[index].is_none() {
            let thread = profile.thread(sample.thread);
            let (pid, mut tid) = (profile.process(thread).pid, u64::from(thread.tid));
            let is_used = |owner: &usize| {
                tracks[*owner].as_ref().is_some_and(|track: &Track| track.end_ns > start_ns)
            };
            while owners.get(&(pid, tid)).is_some_and(is_used) {
                tid += ANOTHER;
            }
            owners.insert((pid, tid), index);
            trace.thread(profile, sample.thread, pid, tid)?;
            tracks[index] = Some(Track {
                id: format!("\"pid\":{pid},\"tid\":{tid},\"ts\":"),
                path: Vec::new(),
                samples: 0,
                end_ns: start_ns,
            });
        }
        let Some(track) = &mut tracks[index] else { continue };
        let start_ns = start_ns.max(track.end_ns);
        let node = tree.of_stack[sample.stack.0 as usize];
        let is_pause = start_ns - track.end_ns > profile.meta.interval_ns;
        trace.end(track, if is_pause { 0 } else { node })?;
        trace.begin(track, node, start_ns)?;
        track.samples = track.samples.saturating_add(moment.count);
        track.end_ns = start_ns.max(moment.at_ns);
    }
    for track in tracks.iter_mut().flatten() {
        trace.end(track, 0)?;
    }
    write!(trace.out, "\n]}}\n")?;
    trace.out.flush()
}

/// What the events of a slice say of its function: both of them, and the one that begins it.
fn slice(function: &Function) -> [String; 2] {
    let category = match (&*function.file, &*function.name) {
        ("<task>", _) => "task",
        ("~", "<GC>") => "gc",
        ("~", "<native>") => "native",
        ("~", name) if !name.starts_with('<') => "native",
        _ => "python",
    };
    let name = json_text(&function.name);
    let file = json_text(&function.file);
    let line = function.first_line;
    let args = match &*function.file {
        "~" | "<task>" => String::new(),
        _ => format!(",\"args\":{{\"file\":{file},\"line\":{line}}}"),
    };
    [format!(",\"name\":{name}"), format!(",\"cat\":\"{category}\"{args}}}")]
}

/// The slices of a thread.
struct Track {
    /// What its events begin with, up to their time.
    id: String,
    /// The nodes of the slices that have begun, root first, and the samples before each.
    path: Vec<(u32, u64)>,
    /// Samples so far.
    samples: u64,
    /// Until when.
    end_ns: u64,
}

struct Trace<'a> {
    out: BufWriter<&'a mut dyn Write>,
    tree: &'a Tree,
    /// What there is to say of each group.
    slices: Vec<[String; 2]>,
    comma: &'static str,
}

impl Trace<'_> {
    fn head(&mut self, profile: &Profile) -> io::Result<()> {
        let meta = &profile.meta;
        let creator = concat!("pysamp ", env!("CARGO_PKG_VERSION"));
        write!(self.out, "{{\"otherData\":{{\"creator\":\"{creator}\",")?;
        write!(self.out, "\"command\":{},", json_text(&meta.command.join(" ")))?;
        write!(self.out, "\"python\":{},", json_text(&meta.python))?;
        write!(self.out, "\"start_unix_ns\":\"{}\",", meta.start_unix_ns)?;
        write!(self.out, "\"samples\":{},\"failed\":{},", meta.samples, meta.failed)?;
        write!(self.out, "\"missed\":{}}},\n\"traceEvents\":[", meta.missed)?;
        for process in &profile.processes {
            let name = json_text(&process.program);
            self.event()?;
            write!(self.out, "{{\"ph\":\"M\",\"pid\":{},\"name\":\"process_name\",", process.pid)?;
            write!(self.out, "\"args\":{{\"name\":{name}}}}}")?;
        }
        Ok(())
    }

    fn thread(&mut self, profile: &Profile, id: ThreadId, pid: u32, tid: u64) -> io::Result<()> {
        let thread = profile.thread(id);
        let name = match &*thread.name {
            "" => format!("Thread {}", thread.tid),
            name => one_line(name).into_owned(),
        };
        for (what, value) in [
            ("thread_name", format!("\"name\":{}", json_text(&name))),
            ("thread_sort_index", format!("\"sort_index\":{}", id.0)),
        ] {
            self.event()?;
            write!(self.out, "{{\"ph\":\"M\",\"pid\":{pid},\"tid\":{tid},\"name\":\"{what}\",")?;
            write!(self.out, "\"args\":{{{value}}}}}")?;
        }
        Ok(())
    }

    /// Ends the slices that are not those of a node and its callers.
    fn end(&mut self, track: &mut Track, mut node: u32) -> io::Result<()> {
        while let Some(&(last, before)) = track.path.last() {
            // Callers have smaller numbers.
            while node > last {
                node = self.tree.parent[node as usize];
            }
            if node == last {
                break;
            }
            track.path.pop();
            self.event()?;
            write!(self.out, "{{\"ph\":\"E\",{}", track.id)?;
            self.microseconds(track.end_ns)?;
            let group = self.tree.group[last as usize] as usize;
            self.out.write_all(self.slices[group][0].as_bytes())?;
            write!(self.out, ",\"args\":{{\"samples\":{}}}}}", track.samples - before)?;
        }
        Ok(())
    }

    /// Begins the slices that a node is above those that have begun.
    fn begin(&mut self, track: &mut Track, mut node: u32, start_ns: u64) -> io::Result<()> {
        let known = track.path.len();
        let top = track.path.last().map_or(0, |&(node, _)| node);
        while node > top {
            track.path.push((node, track.samples));
            node = self.tree.parent[node as usize];
        }
        track.path[known..].reverse();
        for index in known..track.path.len() {
            let group = self.tree.group[track.path[index].0 as usize] as usize;
            self.event()?;
            write!(self.out, "{{\"ph\":\"B\",{}", track.id)?;
            self.microseconds(start_ns)?;
            for part in &self.slices[group] {
                self.out.write_all(part.as_bytes())?;
            }
        }
        Ok(())
    }

    /// What stands between events.
    fn event(&mut self) -> io::Result<()> {
        writeln!(self.out, "{}", self.comma)?;
        self.comma = ",";
        Ok(())
    }

    fn microseconds(&mut self, ns: u64) -> io::Result<()> {
        match ns % 1_000 {
            0 => write!(self.out, "{}", ns / 1_000),
            rest => write!(self.out, "{}.{rest:03}", ns / 1_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{profile, sample, text};
    use crate::profile::Timeline;
    use crate::profile::timeline::Entry;
    use serde_json::Value;

    /// A profile whose samples were taken when it says: number, end and length in microseconds.
    fn at(mut profile: Profile, times: &[(u32, u64, u64)]) -> Profile {
        let mut block = Vec::new();
        let mut before = 0;
        for &(tally, end_us, wall_us) in times {
            let wall_us = Some(wall_us);
            Entry { tally, end_us, wall_us, cpu_us: Some(0), count: 2 }.write(before, &mut block);
            before = end_us;
        }
        let samples = profile.samples.len() as u32;
        profile.timeline = Timeline::new(vec![block.into()], (0..samples).collect());
        profile
    }

    /// What begins and ends: phase, thread, microseconds, name, samples.
    fn events(profile: &Profile) -> Vec<String> {
        let trace: Value = serde_json::from_str(&text(|out| write(profile, out))).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let slices = events.iter().filter(|event| event["ph"] != "M");
        slices
            .map(|event| {
                let samples = &event["args"]["samples"];
                let text = |key: &str| event[key].as_str().unwrap();
                format!(
                    "{} {} {} {} {samples}",
                    text("ph"),
                    event["tid"],
                    event["ts"],
                    text("name")
                )
            })
            .collect()
    }

    #[test]
    fn what_goes_on_is_one_slice() {
        let profile = profile(&[("main:1 f:2", 1), ("main:3 f:2 g:5", 1), ("main:1", 1)]);
        let profile = at(profile, &[(0, 1_000, 1_000), (1, 2_500, 1_500), (2, 3_000, 500)]);
        assert_eq!(
            events(&profile),
            [
                "B 42 0 main null",
                "B 42 0 f null",
                "B 42 1000 g null",
                "E 42 2500 g 2",
                "E 42 2500 f 4",
                "E 42 3000 main 6",
            ]
        );
    }

    #[test]
    fn pauses_end_slices_if_they_are_long() {
        let short = at(profile(&[("f:2", 1)]), &[(0, 500, 500), (0, 2_000, 500)]);
        assert_eq!(events(&short), ["B 42 0 f null", "E 42 2000 f 4"]);
        let long = at(profile(&[("f:2", 1)]), &[(0, 500, 500), (0, 2_001, 500)]);
        let expected = ["B 42 0 f null", "E 42 500 f 2", "B 42 1501 f null", "E 42 2001 f 2"];
        assert_eq!(events(&long), expected);
        // Clocks may differ, but time does not go back.
        let before = at(profile(&[("f:2", 1), ("g:2", 1)]), &[(0, 900, 900), (1, 1_000, 300)]);
        let expected = ["B 42 0 f null", "E 42 900 f 2", "B 42 900 g null", "E 42 1000 g 2"];
        assert_eq!(events(&before), expected);
    }

    #[test]
    fn threads_of_the_same_id_at_the_same_time_are_apart() {
        let mut twice = profile(&[("f:2", 1)]);
        twice.threads.push(twice.threads[0].clone());
        sample(&mut twice, ThreadId(1), [("/app/t.py", "g", 7)], 1);
        let same_time = at(twice.clone(), &[(0, 500, 500), (1, 600, 500), (0, 1_000, 500)]);
        let other = 42 + ANOTHER;
        assert_eq!(
            events(&same_time),
            [
                "B 42 0 f null".to_owned(),
                format!("B {other} 100 g null"),
                "E 42 1000 f 4".to_owned(),
                format!("E {other} 600 g 2"),
            ]
        );
        let afterwards = at(twice, &[(0, 500, 500), (1, 1_000, 500)]);
        let threads = events(&afterwards);
        assert!(threads.iter().all(|event| event.contains(" 42 ")), "{threads:?}");
    }
}
