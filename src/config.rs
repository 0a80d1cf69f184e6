//! What the user asks for: one typed configuration, parsed from `PYTHONSAMPLE` and written back to it.
//!
//! `PYTHONSAMPLE` is `0`/`off` or empty, `1`/`on`, or a comma-separated list of the command line's
//! long options: `rate=5khz,blocking,collapsed,output=/tmp/p_%p.txt`. Every format may stand alone, or
//! behind `format=`; several are one file each. In a value a backslash takes the meaning from a comma
//! or a backslash; before anything else it stands for itself.

mod env_value;
mod output;
mod values;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

pub use crate::export::{By, Format, SortKey, Style};
use crate::export::{UnknownName, by_name};
use crate::profile::BadPattern;
pub use crate::profile::{Mode, View};
pub use crate::sampler::tasks::Scope as AsyncMode;
pub use crate::trampoline::Backend as Perf;
pub use output::OutputTemplate;
pub(crate) use output::{before_ending, with_ending};
pub use values::{
    ControlSignal, parse_async_mode, parse_duration, parse_instant, parse_limit, parse_mode,
    parse_overhead, parse_rate, parse_rotation, parse_signal, parse_width,
};

/// The environment variable that carries a configuration.
pub const ENV_VARIABLE: &str = "PYTHONSAMPLE";

/// Everything that can be asked of one profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time between two samples of a thread.
    pub interval: Duration,
    /// How much of a processor's time sampling may take, in hundredths of a percent.
    pub max_overhead: Option<u32>,
    /// How long to sample; until the process ends if `None`.
    pub duration: Option<Duration>,
    /// How long to wait before sampling begins, once the interpreter is up.
    pub delay: Option<Duration>,
    /// How much each profile covers before it is written, numbered, and the next begins.
    pub rotate: Option<Duration>,
    /// The signal that writes a numbered profile.
    pub control: Option<ControlSignal>,
    /// Whether the control signal also begins and ends sampling.
    pub paused: bool,
    /// Whether threads are held still while they are read.
    pub blocking: bool,
    /// Whether the C code that threads run is looked for.
    pub native: bool,
    /// How the interpreter's memory is read.
    pub memory: Memory,
    /// Which of asyncio's tasks are sampled, in the place of the event loops that run them, and which
    /// greenlets.
    pub async_mode: Option<AsyncMode>,
    /// Whether the instructions that frames are at are recorded.
    pub opcodes: bool,
    /// What is written; all of it is recorded.
    pub view: View,
    /// Whether Python functions are told to `perf` and its like, and how.
    pub perf: Option<Perf>,
    /// What is written: at least one format.
    pub formats: Vec<Format>,
    /// Where it is written; if `None`, to names made from the formats and the process id.
    pub output: Option<OutputTemplate>,
    /// Whether `pysamp run` makes one profile of all processes'; elsewhere each has its own.
    pub subprocesses: bool,
    /// How the formats look that are made for people to read.
    pub style: Style,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(1),
            max_overhead: None,
            duration: None,
            delay: None,
            rotate: None,
            control: None,
            paused: false,
            blocking: false,
            native: false,
            memory: Memory::Auto,
            async_mode: None,
            opcodes: false,
            view: View::default(),
            perf: None,
            formats: vec![Format::Html],
            output: None,
            subprocesses: false,
            style: Style::default(),
        }
    }
}

/// How the interpreter's memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// Whatever works best here.
    Auto,
    /// By system call.
    Syscall,
    /// By guarded loads.
    Direct,
}

impl Memory {
    /// Every way there is.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Syscall, Self::Direct];

    /// The name that the option uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Syscall => "syscall",
            Self::Direct => "direct",
        }
    }
}

impl FromStr for Memory {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        by_name("way to read memory", Self::ALL, Self::name, name)
    }
}

/// Why a configuration cannot be used: one sentence that says what was wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("'{0}' is not a sampling rate; write samples a second, such as 1000, 500hz or 10khz")]
    Rate(String),
    #[error("a sampling rate of '{0}' is too low; the lowest is 0.01hz")]
    RateTooLow(String),
    #[error("a sampling rate of '{0}' is too high; the highest is 1mhz")]
    RateTooHigh(String),
    #[error("'{0}' is not a duration; write a time above zero, such as 10, 2.5s, 100ms or 5m")]
    Duration(String),
    #[error("a duration of '{0}' is too long; the longest is ten years (87600h)")]
    DurationTooLong(String),
    #[error("a rotation of '{0}' is too short; the shortest is 100ms")]
    RotationTooShort(String),
    #[error("there is no signal '{0}'; write its name, such as USR2")]
    NoSignal(String),
    #[error("{name} cannot be used for control, as {why}; USR2 can")]
    UnfitSignal { name: &'static str, why: &'static str },
    #[error("'paused' needs a signal that begins sampling; add control=USR2")]
    PausedForever,
    #[error(
        "'subprocesses' and 'rotate' exclude each other; each process can write its own profiles"
    )]
    SubprocessesRotated,
    #[error("'paused' and 'delay' exclude each other; choose when sampling begins")]
    PausedAndDelayed,
    #[error("'{0}' is not a share of a processor's time; write 0.01% to 100%, such as 1%")]
    Overhead(String),
    #[error("'{0}' is not a number of rows; write a whole number from 1")]
    Limit(String),
    #[error("'{0}' is not a number of columns; write a whole number from 1")]
    Width(String),
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    #[error(transparent)]
    BadPattern(#[from] BadPattern),
    #[error("the output path is empty; name a file")]
    OutputEmpty,
    #[error("the output path holds a NUL byte, which no file name can")]
    OutputNul,
    #[error("the output path '{0}' is a directory; name a file")]
    OutputDirectory(String),
    #[error("'{sequence}' in the output path '{path}' means nothing; use %p, %t, %n, %i or %%")]
    OutputSequence { sequence: String, path: String },
    #[error("two commas with nothing between them, or one at an end; leave it out")]
    EmptyItem,
    #[error("there is no option '{key}'{}", did_you_mean(.nearest))]
    UnknownKey { key: String, nearest: Option<&'static str> },
    #[error("the option '{0}' needs a value: {0}=…")]
    NeedsValue(&'static str),
    #[error("the option '{0}' takes no value; write only '{0}'")]
    TakesNoValue(&'static str),
    #[error("the option '{0}' is given twice; give it once")]
    Twice(&'static str),
}

fn did_you_mean(nearest: &Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean '{key}'?"))
}

impl Config {
    /// Refuses what cannot be together.
    pub fn checked(self) -> Result<Self, ConfigError> {
        match self {
            Self { paused: true, control: None, .. } => Err(ConfigError::PausedForever),
            Self { subprocesses: true, rotate: Some(_), .. } => {
                Err(ConfigError::SubprocessesRotated)
            }
            Self { paused: true, delay: Some(_), .. } => Err(ConfigError::PausedAndDelayed),
            sound => Ok(sound),
        }
    }

    /// What was asked for that changes nothing, as one sentence.
    pub fn idle_option(&self) -> Option<String> {
        let is_shown = self.formats.iter().any(|format| format.shows_opcodes());
        (self.opcodes && !is_shown).then(|| {
            let showing = Format::ALL.into_iter().filter(|format| format.shows_opcodes());
            let names: Vec<&str> = showing.map(Format::name).collect();
            let names = names.join(", ");
            format!("'opcodes' changes nothing in what is written; it shows in {names}")
        })
    }

    /// What is written, and where to. Several formats differ by the endings of their names.
    pub fn outputs(&self) -> Vec<(Format, OutputTemplate)> {
        let place = |&format: &Format| {
            let template = match &self.output {
                Some(chosen) if self.formats.len() == 1 => chosen.clone(),
                Some(chosen) => {
                    let path = Path::new(chosen.as_os_str());
                    chosen.with_ending(&format.ending_after(path, &self.formats))
                }
                None => OutputTemplate::usual(&format.ending_among(&self.formats)),
            };
            (format, template)
        };
        self.formats.iter().map(place).collect()
    }
}
