//! Signals and job control under `pysamp run`: the program and whoever started it notice nothing.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PYSAMP: &str = env!("CARGO_BIN_EXE_pysamp");

/// pysamp with a program that has printed its process id.
struct Running {
    pysamp: Child,
    output: BufReader<std::process::ChildStdout>,
    program: u32,
}

fn start(command: &mut Command) -> Running {
    let mut pysamp = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = BufReader::new(pysamp.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    Running { pysamp, output, program: line.trim().parse().unwrap() }
}

fn python(script: &str) -> Command {
    let mut command = Command::new(PYSAMP);
    command.args(["run", "--", "python3", "-c", script]);
    command
}

/// Tests may be run in the background, where a shell has interrupts ignored.
fn with_default_signals(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", program]);
    command
}

fn kill(signal: &str, pid: u32) {
    assert!(
        Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success()
    );
}

/// Waits until a process is in a state, as `/proc` names it.
fn wait_for_state(pid: u32, wanted: impl Fn(char) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let state = stat.rsplit(") ").next().unwrap().chars().next().unwrap();
        if wanted(state) {
            return;
        }
        assert!(Instant::now() < end, "{pid} stays in state {state}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn signals_sent_to_pysamp_reach_the_program_once() {
    let script = "
import os, signal, time
names = 'INT QUIT TERM HUP USR1 USR2 CONT WINCH ALRM TSTP'.split()
seen = []
def show(number, frame):
    seen.append(number)
    print(number, flush=True)
for name in names:
    signal.signal(getattr(signal, 'SIG' + name), show)
print(os.getpid(), flush=True)
while len(seen) < len(names): time.sleep(0.01)
time.sleep(0.2)
";
    let mut running = start(&mut python(script));
    for name in ["INT", "QUIT", "TERM", "HUP", "USR1", "USR2", "CONT", "WINCH", "ALRM", "TSTP"] {
        kill(name, running.pysamp.id());
        let mut line = String::new();
        running.output.read_line(&mut line).unwrap();
        let shown = Command::new("kill").args(["-l", line.trim()]).output().unwrap();
        assert_eq!(String::from_utf8(shown.stdout).unwrap().trim(), name);
    }
    let mut rest = String::new();
    running.output.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("Profile Stats:\n"), "a signal came twice: {rest}");
    assert_eq!(running.pysamp.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_that_ends_the_program_ends_pysamp() {
    for (name, number) in [("TERM", 15), ("USR1", 10), ("QUIT", 3)] {
        let script = "import os, time; print(os.getpid(), flush=True); time.sleep(60)";
        let mut running =
            start(with_default_signals(PYSAMP).args(["run", "--", "python3", "-c", script]));
        kill(name, running.pysamp.id());
        assert_eq!(running.pysamp.wait().unwrap().signal(), Some(number));
        assert!(!std::path::Path::new(&format!("/proc/{}", running.program)).exists());
    }
}

/// Signal state that is inherited, as the kernel shows it.
const SHOW_STATE: &str = "grep -E ^Sig[BI] /proc/self/status";

#[test]
fn dispositions_and_mask_are_those_pysamp_was_started_with() {
    for ignored in ["", "INT PIPE", "HUP CHLD", "TSTP TTIN QUIT USR1"] {
        let shown = |command: &str| {
            // Python, as a shell resets or keeps some of them to itself.
            let script = format!(
                "import os, signal
for number in signal.valid_signals() - {{signal.SIGKILL, signal.SIGSTOP}}:
    signal.signal(number, signal.SIG_DFL)
for name in '{ignored}'.split():
    signal.signal(getattr(signal, 'SIG' + name), signal.SIG_IGN)
if '{ignored}': signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
command = '{command} {SHOW_STATE}'.split()
os.execvp(command[0], command)"
            );
            let output = Command::new("python3").args(["-c", &script]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let plain = shown("env");
        assert!(plain.contains("SigIgn"), "{plain}");
        assert_eq!(shown(&format!("{PYSAMP} run --")), plain, "{ignored}");
    }
}

#[test]
fn pysamp_stops_and_continues_with_the_program() {
    for to_continue in [Continue::Pysamp, Continue::Both] {
        let script = "
import os, signal, time
signal.signal(signal.SIGCONT, lambda *_: print('continued', flush=True))
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(0.5)
";
        let mut running = start(&mut python(script));
        let pysamp = running.pysamp.id();
        wait_for_state(pysamp, |state| state == 'T');
        wait_for_state(running.program, |state| state == 'T');
        let mut line = String::new();
        if matches!(to_continue, Continue::Both) {
            kill("CONT", running.program);
            running.output.read_line(&mut line).unwrap();
        }
        kill("CONT", pysamp);
        running.output.read_to_string(&mut line).unwrap();
        let printed = line.split("Profile Stats:\n").next();
        assert_eq!(printed, Some("continued\n"));
        assert_eq!(running.pysamp.wait().unwrap().code(), Some(0));
    }
}

enum Continue {
    Pysamp,
    Both,
}

/// A terminal with a command in it, by Python's `pty`: types, sends the command signals, and waits
/// for marks in what it prints.
const TERMINAL: &str = r#"
import os, pty, select, signal, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.environ['PS1'] = '$ '
    os.execvp(sys.argv[1], sys.argv[1:])
seen = ''
def expect(mark):
    global seen
    end = time.time() + 20
    while mark not in seen:
        if not select.select([terminal], [], [], end - time.time() if end > time.time() else 0)[0]:
            sys.exit(f'no {mark!r} in {seen!r}')
        seen += os.read(terminal, 4096).decode()
    seen = seen[seen.index(mark) + len(mark):]
def write(text): os.write(terminal, text.encode())
for step in sys.stdin.read().splitlines():
    action, text = step.split(' ', 1)
    {'type': lambda: write(text + '\n'), 'key': lambda: write(chr(int(text))), 'signal': lambda: os.kill(pid, getattr(signal, text)), 'expect': lambda: expect(text)}[action]()
"#;

const SHELL: [&str; 4] = ["bash", "--norc", "--noprofile", "-i"];

fn terminal(command: &[&str], steps: &str) {
    let mut python = with_default_signals("python3")
        .args(["-c", TERMINAL])
        .args(command)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(steps.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Counts its signals, so that one that comes twice is seen.
const COUNTER: &str = "
import signal, sys, time
signals = []
signal.signal(signal.SIGINT, lambda *_: signals.append('int'))
signal.signal(signal.SIGCONT, lambda *_: signals.append('cont'))
print('started' + '!', flush=True)
for line in sys.stdin:
    time.sleep(0.2)
    print('got', signals, flush=True)
    if 'end' in line: sys.exit(9)
";

fn counter_script(directory: &tempfile::TempDir) -> String {
    let path = directory.path().join("counter.py");
    std::fs::write(&path, COUNTER).unwrap();
    path.into_os_string().into_string().unwrap()
}

#[test]
fn interrupts_from_a_terminal_come_once() {
    let directory = tempfile::TempDir::new().unwrap();
    // Held back until the program has had its own, so that a second one is not merged with it.
    terminal(
        &[PYSAMP, "run", &counter_script(&directory)],
        "expect started!\nsignal SIGSTOP\nkey 3\ntype x\nexpect got ['int']\nsignal SIGCONT\n\
         type x\nexpect got ['int', 'cont']\ntype end\nexpect got ['int', 'cont']\n",
    );
}

#[test]
fn a_shell_suspends_and_resumes_the_program() {
    let directory = tempfile::TempDir::new().unwrap();
    let run = format!("{PYSAMP} run {}", counter_script(&directory));
    terminal(
        &SHELL,
        &format!(
            "type {run}\nexpect started!\nkey 26\nexpect Stopped\ntype jobs\nexpect Stopped\ntype fg\n\
         expect run\ntype x\nexpect got ['cont']\ntype end\nexpect got ['cont']\n\
         type echo code=$?;\nexpect code=9\n"
        ),
    );
}

#[test]
fn an_interrupted_program_looks_interrupted_to_the_shell() {
    // Not a shell: one that gets an interrupt between two commands may not end by it.
    let script = r#"import time; print("started" + "!", flush=True); time.sleep(60)"#;
    terminal(
        &SHELL,
        &format!(
            "type {PYSAMP} run -- python3 -c '{script}'\nexpect started!\nkey 3\n\
         type echo code=$?;\nexpect code=130\n"
        ),
    );
}
