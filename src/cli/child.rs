//! The program as a child process: it starts with the signals pysamp was started with, gets every
//! signal meant for it, and pysamp stops, continues and ends as it does.
//!
//! Signals are blocked and waited for rather than handled or ignored: both of those would have to be
//! undone between fork and exec, and an ignored signal is inherited.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, pid_t, siginfo_t, sigset_t};

static SIGPIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Notes what SIGPIPE did when the process started. To be called before `main`, since Rust's runtime
/// ignores the signal; async-signal-safe.
pub fn remember_sigpipe() {
    SIGPIPE_WAS_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With an exit code.
    Exited(u8),
    /// By a signal.
    Killed(c_int),
}

/// A program that has ended.
pub(super) struct Ended {
    pub(super) pid: u32,
    pub(super) ending: Ending,
    pub(super) signals: OriginalSignals,
}

/// The signal state pysamp was started with, as far as it has changed it.
#[derive(Clone, Copy)]
pub(super) struct OriginalSignals {
    mask: sigset_t,
    sigchld_ignored: bool,
    sigpipe_ignored: bool,
}

/// Starts a program and stays with it until it ends. What `beside` makes, once the program runs, lives
/// as long.
pub(super) fn run_to_end<T>(
    command: &mut Command,
    beside: impl FnOnce() -> T,
) -> io::Result<Ended> {
    let watched = watched();
    let signals = OriginalSignals::take_over(&watched);
    // SAFETY: the closure only makes signal calls, which are all async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            signals.restore_dispositions();
            signals.unblock();
            Ok(())
        });
    }
    let spawned = command.spawn().inspect_err(|_| signals.unblock())?;
    let pid = spawned.id();
    // Its threads have the signals blocked that are waited for here.
    let beside = beside();
    let ending = watch(pid as pid_t, &watched)?;
    drop(beside);
    Ok(Ended { pid, ending, signals })
}

/// Ends this process by a signal, as the program ended, so that the shell sees the same.
pub(super) fn die_of(signal: c_int) -> ExitCode {
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let only = set_of(&[signal]);
    // SAFETY: calls that change limits, signal state and nothing in memory. The program's core dump
    // is the one of interest; the second call is for dumps that go to a pipe and know no limit.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::signal(signal, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &only, ptr::null_mut());
        libc::raise(signal);
    }
    // Still here: as the first process of a container, which no default action ends.
    ExitCode::from(128u8.wrapping_add(signal as u8))
}

impl OriginalSignals {
    fn take_over(watched: &sigset_t) -> Self {
        let mut mask = set_of(&[]);
        // SAFETY: both sets are initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, watched, &mut mask) };
        let sigchld_ignored = is_ignored(libc::SIGCHLD);
        // Ignored, it would take the program's exit status away.
        set_ignored(libc::SIGCHLD, false);
        let sigpipe_ignored = SIGPIPE_WAS_IGNORED.load(Ordering::Relaxed);
        Self { mask, sigchld_ignored, sigpipe_ignored }
    }

    /// Ignores again what was ignored; async-signal-safe.
    fn restore_dispositions(&self) {
        set_ignored(libc::SIGCHLD, self.sigchld_ignored);
        set_ignored(libc::SIGPIPE, self.sigpipe_ignored);
    }

    /// Lets the signals through again that were not blocked before; async-signal-safe.
    pub(super) fn unblock(&self) {
        // SAFETY: the mask is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.mask, ptr::null_mut()) };
    }
}

/// The signals to wait for: all but those that cannot be blocked, that report a fault of pysamp's
/// own, that stop it for using the terminal, or that the C library keeps for itself.
fn watched() -> sigset_t {
    const LEFT_ALONE: [c_int; 11] = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGSYS,
        libc::SIGPIPE,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGXCPU,
        libc::SIGXFSZ,
    ];
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set, leaving the C library's own signals out.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        let mut set = set.assume_init();
        for signal in LEFT_ALONE {
            libc::sigdelset(&mut set, signal);
        }
        set
    }
}

/// Forwards signals and follows stops until the program has ended.
fn watch(pid: pid_t, watched: &sigset_t) -> io::Result<Ending> {
    loop {
        let mut info = MaybeUninit::<siginfo_t>::zeroed();
        // SAFETY: the set is initialised and the structure can hold the result; zeroes are valid.
        let (signal, info) =
            unsafe { (libc::sigwaitinfo(watched, info.as_mut_ptr()), info.assume_init()) };
        match signal {
            // Interrupted, after a stop for instance.
            -1 => {}
            libc::SIGCHLD => {
                if let Some(ending) = follow(pid)? {
                    return Ok(ending);
                }
            }
            _ if came_from_the_terminal(signal, &info) => {}
            _ => send(pid, signal),
        }
    }
}

/// Whether the terminal sent the signal, and so to the program, too. A process that means only
/// pysamp by its signal means the program.
fn came_from_the_terminal(signal: c_int, info: &siginfo_t) -> bool {
    // Timers, too, are sent by the kernel, but to one process.
    let terminal =
        [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGHUP, libc::SIGCONT, libc::SIGWINCH];
    info.si_code == libc::SI_KERNEL && terminal.contains(&signal)
}

/// Looks at what became of the program: stops with it, or tells how it ended.
fn follow(pid: pid_t) -> io::Result<Option<Ending>> {
    loop {
        let mut status = 0;
        // SAFETY: the status is a valid place to write to.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG | libc::WUNTRACED) } {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ if libc::WIFEXITED(status) => {
                return Ok(Some(Ending::Exited(libc::WEXITSTATUS(status) as u8)));
            }
            _ if libc::WIFSIGNALED(status) => {
                return Ok(Some(Ending::Killed(libc::WTERMSIG(status))));
            }
            _ => stop_until_continued(pid),
        }
    }
}

/// Stops this process as the program has stopped; once continued, continues the program, unless
/// whoever continued the one did so with the other.
fn stop_until_continued(pid: pid_t) {
    let sigcont = set_of(&[libc::SIGCONT]);
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    // SAFETY: the sets and structures are initialised and live through the calls; waitid leaves a
    // process id of zero where the program was not continued.
    let continued = unsafe {
        libc::raise(libc::SIGSTOP);
        libc::sigtimedwait(&sigcont, ptr::null_mut(), &at_once);
        let options = libc::WCONTINUED | libc::WNOHANG;
        libc::waitid(libc::P_PID, pid as libc::id_t, info.as_mut_ptr(), options) == 0
            && info.assume_init().si_pid() == pid
    };
    if !continued {
        send(pid, libc::SIGCONT);
    }
}

fn send(pid: pid_t, signal: c_int) {
    // SAFETY: the process is a child that has not been waited for to its end, so the id is its own.
    // That it cannot be signalled, having changed its user, is no fault of anyone's.
    unsafe { libc::kill(pid, signal) };
}

fn set_of(signals: &[c_int]) -> sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set = set.assume_init();
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}

fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the structure can hold the result; zeroes, for the default action, are valid.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

fn set_ignored(signal: c_int, ignored: bool) {
    // SAFETY: both are actions that run no code.
    unsafe { libc::signal(signal, if ignored { libc::SIG_IGN } else { libc::SIG_DFL }) };
}
