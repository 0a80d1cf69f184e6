//! Memory images of real interpreters that stand still in a stack of known depth.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use object::{Object, ObjectKind, ObjectSymbol};
use pysamp::layout::Version;
use pysamp::layout::detect::{self, Build, Symbols};
use pysamp::mem::{Address, Fault, Memory, MemoryImage, RecordingMemory};
use pysamp::reader::codes::CodeTable;
use pysamp::reader::self_check::{self, Known};
use pysamp::reader::thread_names::NameReader;
use pysamp::reader::threads::{self, PthreadTid, ThreadState};
use pysamp::sampler::snapshot::{Outcome, Protocol, Snapshotter};
use pysamp::sampler::target::Target;

use crate::support::Interpreter;

/// Functions that call each other, each with a line table of some length, down to one that tells
/// its thread's ident and waits until its standard input is closed. `<module>` and `stand` count.
const PROGRAM: &str = r#"
import os, sys, threading

depth = int(sys.argv[1])

def stand():
    os.write(1, b"%d\n" % threading.get_ident())
    os.read(0, 1)

callees = ["function_%d(value)" % number for number in range(1, depth - 2)] + ["stand()"]
body = "    value = value + (value >> 1)\n" * 24
source = "".join(
    "def function_%d(value):\n%s    return %s\n" % (number, body, callee)
    for number, callee in enumerate(callees)
)
names = {"stand": stand}
exec(compile(source, "/srv/application/deep.py", "exec"), names)
names["function_0"](1)
"#;

/// What a sampler inside the interpreter would have read.
pub struct Capture {
    /// The memory.
    pub image: MemoryImage,
    /// The interpreter it is of.
    pub build: Build,
    /// Address of `PyCode_Type`.
    pub code_type: Address,
    /// How tids are found before 3.11.
    pub pthread_tid: Option<PthreadTid>,
    /// The thread that stands in the deep stack.
    pub thread: ThreadState,
}

impl Capture {
    /// A snapshotter that has seen nothing yet.
    pub fn snapshotter(&self) -> Snapshotter {
        let codes = CodeTable::new(self.build.layout.clone(), self.code_type);
        Snapshotter::new(self.build.clone(), Protocol::Asynchronous, codes)
    }
}

/// Runs the interpreter until it stands `depth` frames deep, and keeps what the reader reads then.
pub fn capture(interpreter: &Interpreter, depth: usize) -> Result<Capture, String> {
    let mut child = Command::new(&interpreter.path)
        .args(["-I", "-S", "-c", PROGRAM, &depth.to_string()])
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let captured = capture_child(interpreter, depth, &mut child);
    drop(child.stdin.take());
    let ended = child.wait().map_err(|error| error.to_string())?;
    if ended.success() { captured } else { Err(format!("the program failed: {ended}")) }
}

fn capture_child(
    interpreter: &Interpreter,
    depth: usize,
    child: &mut Child,
) -> Result<Capture, String> {
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or("no output")?;
    BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
    let ident: u64 = line.trim().parse().map_err(|_| format!("no ident: {line:?}"))?;
    let pid = child.id();
    let runtime = runtime_address(pid).ok_or("there is no _PyRuntime")?;
    let file = File::open(format!("/proc/{pid}/mem")).map_err(|error| error.to_string())?;
    let memory = RecordingMemory::new(ChildMemory(file));

    let (major, minor, micro) = interpreter.version;
    let version = Some(Version { major, minor, micro });
    let symbols = Symbols { runtime, version, debug: interpreter.debug };
    let build = detect::build(&memory, &symbols).map_err(|error| error.to_string())?;
    let pthread_tid = PthreadTid::find(&memory, ident, pid);
    let known = Known { main_tid: pid, code_type: None, pthread_tid };
    let code_type =
        self_check::check(&memory, &build, &known).map_err(|error| error.to_string())?.code_type;
    threads::is_finalizing(&memory, &build).map_err(|_| "the runtime is torn")?;
    let mut interpreters = Vec::new();
    threads::interpreters(&memory, &build, &mut interpreters).map_err(|_| "interpreters torn")?;
    let mut states = Vec::new();
    for &one in &interpreters {
        threads::threads(&memory, &build.layout, pthread_tid, one, &mut states)
            .map_err(|_| "threads torn")?;
        let names = NameReader::default().names(&memory, &build.layout, one);
        if !names.is_ok_and(|names| names.iter().any(|(_, name)| &**name == "MainThread")) {
            return Err("the main thread has no name".to_owned());
        }
    }
    let thread = *states.iter().find(|state| state.tid == pid).ok_or("no main thread")?;
    let mut capture = Capture { image: MemoryImage::new(), build, code_type, pthread_tid, thread };
    let mut snapshotter = capture.snapshotter();
    let mut target = Target::default();
    for _ in 0..2 {
        let outcome = snapshotter.take(&memory, &thread, &mut target);
        if outcome != Outcome::Stack || target.stack.len() != depth {
            return Err(format!("{outcome:?} with {} frames", target.stack.len()));
        }
    }
    capture.image = memory.image();
    Ok(capture)
}

/// Another process's memory, read in whole pages where the reader reads ahead.
struct ChildMemory(File);

impl Memory for ChildMemory {
    fn read(&self, from: Address, into: &mut [u8]) -> Result<(), Fault> {
        self.0.read_exact_at(into, from).map_err(|_| Fault)
    }

    fn prefers_batches(&self) -> bool {
        true
    }
}

/// Where `_PyRuntime` lies, from the symbols of the files that are mapped.
fn runtime_address(pid: u32) -> Option<Address> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    maps.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[range, _, offset, _, _, path] = fields.as_slice() else { return None };
        if !path.contains("python") || u64::from_str_radix(offset, 16) != Ok(0) {
            return None;
        }
        let start = u64::from_str_radix(range.split('-').next()?, 16).ok()?;
        let bytes = fs::read(path).ok()?;
        let file = object::File::parse(&*bytes).ok()?;
        let bias = if file.kind() == ObjectKind::Dynamic { start } else { 0 };
        file.dynamic_symbols()
            .find(|symbol| symbol.name() == Ok("_PyRuntime") && symbol.is_definition())
            .map(|symbol| bias + symbol.address())
    })
}
