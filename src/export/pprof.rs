//! The profile that `go tool pprof` and many services read: protocol buffers, gzipped.
//!
//! A sample is what one thread was seen in one stack: how often, the wall time, the CPU time; its labels
//! tell thread, process and asyncio task. A location is a line of a function. The fields are those of
//! pprof's `profile.proto`. What repeats is written as it is met, so nothing is held back.

use super::aggregate::{Amount, Tree, by_place};
use super::one_line;
use crate::profile::{Profile, Thread};
use flate2::{Compression, write::GzEncoder};
use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

/// Field numbers of the message `Profile`.
mod field {
    pub const SAMPLE_TYPE: u32 = 1;
    pub const SAMPLE: u32 = 2;
    pub const MAPPING: u32 = 3;
    pub const LOCATION: u32 = 4;
    pub const FUNCTION: u32 = 5;
    pub const STRING: u32 = 6;
    pub const TIME_NANOS: u32 = 9;
    pub const DURATION_NANOS: u32 = 10;
    pub const PERIOD_TYPE: u32 = 11;
    pub const PERIOD: u32 = 12;
    pub const COMMENT: u32 = 13;
    pub const DEFAULT_SAMPLE_TYPE: u32 = 14;
}

/// Writes the file.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let gzip = GzEncoder::new(out, Compression::default());
    let mut file = File { out: BufWriter::new(gzip), strings: HashMap::new() };
    // The first string has to be the empty one.
    file.string("")?;
    file.head(profile)?;

    let places = by_place(profile);
    let tree = Tree::new(profile, &places.of_frame);
    let used = tree.used(profile);
    let mut has_location = vec![false; places.keys.len()];
    let mut has_function = vec![false; profile.functions.len()];
    // The innermost task on the stack of each node, by its name; 0 if there is none.
    let mut task = vec![0; tree.parent.len()];
    for node in (1..used.len()).filter(|&node| used[node]) {
        let place = tree.group[node] as usize;
        let (function, line) = (places.keys[place].0.0 as usize, places.keys[place].1);
        if !std::mem::replace(&mut has_function[function], true) {
            file.function(profile, function)?;
        }
        if !std::mem::replace(&mut has_location[place], true) {
            file.location(place, function, line)?;
        }
        task[node] = match &profile.functions[function] {
            task if &*task.file == "<task>" => file.string(&task.name)?,
            _ => task[tree.parent[node] as usize],
        };
    }

    let task_key = file.string("task")?;
    let labels: io::Result<Vec<Message>> =
        profile.threads.iter().map(|thread| file.labels(profile, thread)).collect();
    let labels = labels?;
    let weighs_cpu = profile.weighs_cpu();
    for ((thread, node, ()), Amount { samples, ns, cpu_ns }) in tree.sampled(profile, |_| ()) {
        let mut sample = Message::default();
        let stack =
            std::iter::successors(Some(node as usize), |&node| Some(tree.parent[node] as usize));
        let stack = stack.take_while(|&node| node != 0);
        sample.numbers(1, stack.map(|node| u64::from(tree.group[node]) + 1));
        let values = [samples, ns, cpu_ns].map(signed);
        // In that mode the time that passed is not known.
        sample.numbers(2, values[..if weighs_cpu { 2 } else { 3 }].iter().copied());
        sample.bytes.extend_from_slice(&labels[thread.0 as usize].bytes);
        if task[node as usize] != 0 {
            sample.label(task_key, LabelValue::Text(task[node as usize]));
        }
        file.message(field::SAMPLE, &sample)?;
    }
    file.out.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?.flush()
}

/// The file, and the strings that are in it.
struct File<W: Write> {
    out: BufWriter<W>,
    strings: HashMap<String, u64>,
}

impl<W: Write> File<W> {
    /// All that there is one of.
    fn head(&mut self, profile: &Profile) -> io::Result<()> {
        let meta = &profile.meta;
        let weights = if profile.weighs_cpu() { &["cpu"][..] } else { &["wall", "cpu"] };
        self.value_type(field::SAMPLE_TYPE, "samples", "count")?;
        for weight in weights {
            self.value_type(field::SAMPLE_TYPE, weight, "nanoseconds")?;
        }
        self.value_type(field::PERIOD_TYPE, weights[0], "nanoseconds")?;
        let mut head = Message::default();
        head.number(field::DEFAULT_SAMPLE_TYPE, self.string(weights[0])?);
        head.number(field::TIME_NANOS, signed(meta.start_unix_ns));
        head.number(field::DURATION_NANOS, signed(meta.duration_ns));
        head.number(field::PERIOD, signed(meta.interval_ns));
        for comment in [
            concat!("pysamp ", env!("CARGO_PKG_VERSION")).to_owned(),
            format!("command: {}", meta.command.join(" ")),
            format!("python: {}", meta.python),
            format!("samples: {}, failed: {}, missed: {}", meta.samples, meta.failed, meta.missed),
        ] {
            head.number(field::COMMENT, self.string(&comment)?);
        }
        self.out.write_all(&head.bytes)?;

        let mut mapping = Message::default();
        mapping.number(1, 1);
        mapping.number(5, self.string(&meta.program)?);
        // Functions, files and lines are known: nobody needs to look for symbols.
        (7..=9).for_each(|known| mapping.number(known, 1));
        self.message(field::MAPPING, &mapping)
    }

    fn value_type(&mut self, field: u32, kind: &str, unit: &str) -> io::Result<()> {
        let mut value_type = Message::default();
        value_type.number(1, self.string(kind)?);
        value_type.number(2, self.string(unit)?);
        self.message(field, &value_type)
    }

    fn function(&mut self, profile: &Profile, index: usize) -> io::Result<()> {
        let function = &profile.functions[index];
        let mut message = Message::default();
        message.number(1, index as u64 + 1);
        message.number(2, self.string(&function.name)?);
        // Were it the name again, pprof would take it for C++ and cut `<module>` out.
        message.number(3, self.string(&format!("{}:{}", function.file, function.name))?);
        if &*function.file != "~" {
            message.number(4, self.string(&function.file)?);
        }
        message.number(5, function.first_line.into());
        self.message(field::FUNCTION, &message)
    }

    fn location(&mut self, place: usize, function: usize, line: u32) -> io::Result<()> {
        let mut in_function = Message::default();
        in_function.number(1, function as u64 + 1);
        in_function.number(2, line.into());
        let mut message = Message::default();
        message.number(1, place as u64 + 1);
        message.number(2, 1);
        message.bytes(4, &in_function.bytes);
        self.message(field::LOCATION, &message)
    }

    /// The labels of a thread's samples.
    fn labels(&mut self, profile: &Profile, thread: &Thread) -> io::Result<Message> {
        let process = profile.process(thread);
        let mut labels = Message::default();
        for (key, text) in [("thread", &*thread.name), ("process", &process.program)] {
            if !text.is_empty() {
                labels.label(self.string(key)?, LabelValue::Text(self.string(text)?));
            }
        }
        for (key, id) in [("thread id", thread.tid), ("process id", process.pid)] {
            labels.label(self.string(key)?, LabelValue::Number(id.into()));
        }
        Ok(labels)
    }

    /// The number of a string, which is written when it is first asked for.
    fn string(&mut self, text: &str) -> io::Result<u64> {
        let shown = one_line(text);
        if let Some(&known) = self.strings.get(&*shown) {
            return Ok(known);
        }
        let number = self.strings.len() as u64;
        let mut field = Message::default();
        field.bytes(field::STRING, shown.as_bytes());
        self.out.write_all(&field.bytes)?;
        self.strings.insert(shown.into_owned(), number);
        Ok(number)
    }

    fn message(&mut self, field: u32, message: &Message) -> io::Result<()> {
        let mut head = Message::default();
        head.head(field, message.bytes.len());
        self.out.write_all(&head.bytes)?;
        self.out.write_all(&message.bytes)
    }
}

/// A number as the format's signed ones can hold it.
fn signed(number: u64) -> u64 {
    number.min(i64::MAX as u64)
}

/// The value of a label: a string, by number, or a number.
enum LabelValue {
    Text(u64),
    Number(u64),
}

/// The fields of a protocol buffers message.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn number(&mut self, field: u32, number: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(number);
    }

    /// What stands before the bytes of a string, a message or packed numbers.
    fn head(&mut self, field: u32, length: usize) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(length as u64);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.head(field, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn numbers(&mut self, field: u32, numbers: impl Iterator<Item = u64>) {
        let mut packed = Message::default();
        numbers.for_each(|number| packed.varint(number));
        self.bytes(field, &packed.bytes);
    }

    /// A label of a sample.
    fn label(&mut self, key: u64, value: LabelValue) {
        let mut label = Message::default();
        label.number(1, key);
        match value {
            LabelValue::Text(text) => label.number(2, text),
            LabelValue::Number(number) => label.number(3, number),
        }
        self.bytes(3, &label.bytes);
    }
}
