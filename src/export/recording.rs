//! A recording, as a process keeps one while it runs: everything, for `pysamp report` to read.

use std::io::{self, Write};

use crate::profile::timeline::Entry;
use crate::profile::{Function, Profile, Sample, Stack, Thread};
use crate::recorder::format::{
    self, Kind, counter, put, put_frame, put_long, put_process, put_text,
};

/// Bytes of a block of the timeline.
const BLOCK: usize = 32 << 10;

/// Writes the recording.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let meta = &profile.meta;
    let mut header = [0; format::HEADER_BYTES];
    let mut at = |place: usize, bytes: &[u8]| header[place..][..bytes.len()].copy_from_slice(bytes);
    at(0, &format::MAGIC);
    at(format::VERSION_AT, &format::VERSION.to_le_bytes());
    at(counter::TICKS, &meta.ticks.to_le_bytes());
    at(counter::MISSED, &meta.missed.to_le_bytes());
    at(counter::FAILED, &meta.failed.to_le_bytes());
    at(counter::DURATION_NS, &meta.duration_ns.to_le_bytes());
    out.write_all(&header)?;

    let mut records = Records { out, contents: Vec::new() };
    records.add(Kind::Meta, |to| put_process(to, &meta.process(), meta.interval_ns))?;
    for process in &profile.processes {
        records.add(Kind::Process, |to| put_process(to, process, process.duration_ns))?;
    }
    for Function { file, name, first_line } in &profile.functions {
        records.add(Kind::Function, |to| {
            put(to, *first_line);
            put_text(to, file);
            put_text(to, name);
        })?;
    }
    for frame in &profile.frames {
        records.add(Kind::Frame, |to| put_frame(to, frame))?;
    }
    for Stack { parent, frame } in &profile.stacks {
        records.add(Kind::Stack, |to| {
            put(to, parent.map_or(format::NO_PARENT, |parent| parent.0));
            put(to, frame.0);
        })?;
    }
    for (number, thread) in (0..).zip(&profile.threads) {
        let Thread { process, tid, name, is_main, interpreter } = thread;
        records.add(Kind::Thread, |to| {
            put(to, process.0);
            put(to, *tid);
            put(to, (*is_main).into());
            put_long(to, *interpreter as u64);
        })?;
        records.add(Kind::ThreadName, |to| {
            put(to, number);
            put_text(to, name);
        })?;
    }
    for (number, sample) in (0..).zip(&profile.samples) {
        let Sample { thread, stack, state, count, weight_ns, cpu_ns } = sample;
        records.add(Kind::Tally, |to| {
            for part in [thread.0, stack.0, state.bits().into(), number] {
                put(to, part);
            }
            for part in [*count, *weight_ns, *cpu_ns] {
                put_long(to, part);
            }
        })?;
    }
    if profile.has_timeline() { write_moments(profile, &mut records) } else { Ok(()) }
}

fn write_moments(profile: &Profile, records: &mut Records<'_>) -> io::Result<()> {
    let mut block = Vec::with_capacity(BLOCK);
    let mut block_end_us = 0;
    let mut ends_us = vec![0; profile.threads.len()];
    for moment in profile.moments() {
        let [end_us, wall_us, cpu_us] =
            [moment.at_ns, moment.weight_ns, moment.cpu_ns].map(|ns| ns / 1_000);
        let thread = profile.samples[moment.sample].thread;
        let previous_us = std::mem::replace(&mut ends_us[thread.0 as usize], end_us);
        let entry = Entry {
            tally: moment.sample as u32,
            end_us,
            wall_us: (end_us.saturating_sub(previous_us) != wall_us).then_some(wall_us),
            cpu_us: (cpu_us == 0 || cpu_us != wall_us).then_some(cpu_us),
            count: moment.count,
        };
        entry.write(block_end_us, &mut block);
        block_end_us = end_us;
        if block.len() > BLOCK - Entry::MOST_BYTES {
            records.add(Kind::Moments, |to| to.append(&mut block))?;
            block_end_us = 0;
        }
    }
    records.add(Kind::Moments, |to| to.append(&mut block))
}

/// Writes records.
struct Records<'a> {
    out: &'a mut dyn Write,
    contents: Vec<u8>,
}

impl Records<'_> {
    fn add(&mut self, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let Self { out, contents } = self;
        contents.clear();
        fill(contents);
        let length = contents.len();
        out.write_all(&kind.word(length).to_le_bytes())?;
        out.write_all(&kind.checksum(contents).to_le_bytes())?;
        contents.resize(format::padded(length), 0);
        out.write_all(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{add, profile};
    use crate::profile::{Opcode, Timeline, recording};

    fn read_back(profile: &Profile) -> Profile {
        let mut bytes = Vec::new();
        write(profile, &mut bytes).unwrap();
        let (read, damage) = recording::read(&bytes).unwrap();
        assert_eq!(damage, None);
        read
    }

    #[test]
    fn everything_reads_back() {
        let mut one = profile(&[("main:1 f:2", 30), ("main:1 f:3", 10)]);
        add(&mut one, 7, &[("main:1", 60)]);
        one.threads[1].name = "größe".into();
        one.frames[1].opcode = Opcode::from_bits(0x0D_01);
        assert_eq!(read_back(&one), one);
        let mut other = one.clone();
        other.meta.start_unix_ns += 5_000_000;
        other.processes[0].parent_pid = 4242;
        other.threads[0].interpreter = 3;
        let mut block = Vec::new();
        for at_us in (1..30_000).map(|number| number * 10) {
            let cpu_us = [Some(0), None, Some(3)][at_us as usize % 3];
            let (tally, wall_us, count) = (at_us as u32 % 3, (at_us % 4 == 0).then_some(7), 1);
            let entry = Entry { tally, end_us: at_us, wall_us, cpu_us, count };
            entry.write((at_us - 10) * u64::from(at_us > 10), &mut block);
        }
        other.timeline = Timeline::new(vec![block.into()], vec![0, 1, 2]);
        let both = Profile::merge([one, other]);
        let read = read_back(&both);
        assert!(read.moments().eq(both.moments()) && both.moments().count() == 29_999);
        let without_timeline = |profile| Profile { timeline: Timeline::default(), ..profile };
        assert_eq!(without_timeline(read), without_timeline(both));
    }

    #[test]
    fn entries_of_no_sample_are_no_timeline() {
        let whole = profile(&[("main:1 f:2", 30), ("main:1 f:3", 10)]);
        let mut bytes = Vec::new();
        write(&whole, &mut bytes).unwrap();
        let mut records = Records { out: &mut bytes, contents: Vec::new() };
        let mut block = Vec::new();
        Entry { tally: 7, end_us: 10, wall_us: None, cpu_us: None, count: 1 }.write(0, &mut block);
        records.add(Kind::Moments, |to| to.append(&mut block)).unwrap();
        let (read, _) = recording::read(&bytes).unwrap();
        assert!(!read.has_timeline());
        assert!(read.moments().count() > 0 && read.moments().eq(whole.moments()));
    }
}
