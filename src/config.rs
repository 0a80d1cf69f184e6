//! What the user asks for: one typed configuration, parsed from `PYTHONSAMPLE` and written back to it.
//!
//! `PYTHONSAMPLE` is `0`/`off` or empty, `1`/`on`, or a comma-separated list of the command line's
//! long options: `rate=5khz,blocking,collapsed,output=/tmp/p_%p.txt`. Every format may stand alone, or
//! behind `format=`. In a value a backslash takes the meaning from a comma or a backslash; before
//! anything else it stands for itself.

mod output;
mod values;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;
use std::time::Duration;

pub use crate::export::{Format, SortKey, TableOptions};
use crate::export::{UnknownName, by_name};
pub use crate::profile::Mode;
pub use crate::trampoline::Backend as Perf;
pub use output::OutputTemplate;
pub use values::{
    ControlSignal, parse_duration, parse_limit, parse_mode, parse_rate, parse_rotation,
    parse_signal, parse_width,
};

/// The environment variable that carries a configuration.
pub const ENV_VARIABLE: &str = "PYTHONSAMPLE";

/// Everything that can be asked of one profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time between two samples of a thread.
    pub interval: Duration,
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
    /// How the interpreter's memory is read.
    pub memory: Memory,
    /// Whose time is written; all of it is recorded.
    pub mode: Mode,
    /// Whether Python functions are told to `perf` and its like, and how.
    pub perf: Option<Perf>,
    /// What is written.
    pub format: Format,
    /// Where it is written; if `None`, to a name made from the format and the process id.
    pub output: Option<OutputTemplate>,
    /// How the pstats table looks.
    pub table: TableOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(1),
            duration: None,
            delay: None,
            rotate: None,
            control: None,
            paused: false,
            blocking: false,
            memory: Memory::Auto,
            mode: Mode::Wall,
            perf: None,
            format: Format::Html,
            output: None,
            table: TableOptions::default(),
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
    #[error("'paused' and 'delay' exclude each other; choose when sampling begins")]
    PausedAndDelayed,
    #[error("mode={0} is not available yet; wall, cpu and gil are")]
    ModeNotYet(String),
    #[error("there is no mode '{0}'; it is one of wall, cpu, gil")]
    Mode(String),
    #[error("'{0}' is not a number of rows; write a whole number from 1")]
    Limit(String),
    #[error("'{0}' is not a number of columns; write a whole number from 1")]
    Width(String),
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
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
    #[error("'{0}' and '{1}' exclude each other; choose one format")]
    TwoFormats(&'static str, &'static str),
}

fn did_you_mean(nearest: &Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean '{key}'?"))
}

/// Every key of `PYTHONSAMPLE`, `rate` being another name of `sampling-rate`.
const KEYS: [&str; 24] = [
    "sampling-rate",
    "rate",
    "duration",
    "delay",
    "rotate",
    "control",
    "paused",
    "output",
    "format",
    "pstats",
    "collapsed",
    "svg",
    "flamegraph",
    "html",
    "table",
    "sort",
    "limit",
    "no-summary",
    "width",
    "blocking",
    "memory",
    "mode",
    "perf",
    "all-threads",
];

impl Config {
    /// Reads the value of `PYTHONSAMPLE`; `None` says that profiling is switched off.
    pub fn from_env_value(value: &OsStr) -> Result<Option<Self>, ConfigError> {
        let bytes = value.as_bytes();
        match bytes.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"0" | b"off" => return Ok(None),
            b"1" | b"on" => return Ok(Some(Self::default())),
            _ => {}
        }
        let mut config = Self::default();
        let mut given = Vec::new();
        for item in split_items(bytes) {
            config.set(&item, &mut given)?;
        }
        config.checked().map(Some)
    }

    /// Refuses what cannot be together.
    pub fn checked(self) -> Result<Self, ConfigError> {
        match self {
            Self { paused: true, control: None, .. } => Err(ConfigError::PausedForever),
            Self { paused: true, delay: Some(_), .. } => Err(ConfigError::PausedAndDelayed),
            sound => Ok(sound),
        }
    }

    /// The value of `PYTHONSAMPLE` that [`Config::from_env_value`] reads back as this configuration.
    pub fn to_env_value(&self) -> OsString {
        let mut items = vec![
            format!("sampling-rate={}", values::rate_text(self.interval)),
            format!("format={}", self.format.name()),
            format!("sort={}", self.table.sort.name()),
            format!("limit={}", self.table.limit),
            format!("memory={}", self.memory.name()),
            format!("mode={}", self.mode.name()),
        ];
        for (key, time) in
            [("duration", self.duration), ("delay", self.delay), ("rotate", self.rotate)]
        {
            items.extend(time.map(|time| format!("{key}={}", values::duration_text(time))));
        }
        items.extend(self.table.width.map(|width| format!("width={width}")));
        items.extend(self.perf.map(|perf| format!("perf={}", perf.name())));
        items.extend(self.control.map(|signal| format!("control={}", signal.name())));
        for (key, is_set) in [
            ("paused", self.paused),
            ("blocking", self.blocking),
            ("no-summary", !self.table.summary),
        ] {
            items.extend(is_set.then(|| key.to_owned()));
        }
        let mut value = items.join(",").into_bytes();
        if let Some(output) = &self.output {
            value.extend_from_slice(b",output=");
            for byte in output.as_os_str().as_bytes() {
                if matches!(byte, b',' | b'\\') {
                    value.push(b'\\');
                }
                value.push(*byte);
            }
        }
        OsString::from_vec(value)
    }

    fn set(&mut self, item: &[u8], given: &mut Vec<&'static str>) -> Result<(), ConfigError> {
        let equals = item.iter().position(|byte| *byte == b'=');
        let (key, value) = match equals {
            Some(at) => (&item[..at], Some(&item[at + 1..])),
            None => (item, None),
        };
        let key = key.trim_ascii();
        if key.is_empty() && value.is_none() {
            return Err(ConfigError::EmptyItem);
        }
        let key = find_key(key)?;
        if given.contains(&key) {
            return Err(ConfigError::Twice(key));
        }
        let raw = || value.ok_or(ConfigError::NeedsValue(key));
        let text = || raw().map(String::from_utf8_lossy);
        let bare = || value.map_or(Ok(()), |_| Err(ConfigError::TakesNoValue(key)));
        match key {
            "sampling-rate" => self.interval = parse_rate(&text()?)?,
            "duration" => self.duration = Some(parse_duration(&text()?)?),
            "delay" => self.delay = Some(parse_duration(&text()?)?),
            "rotate" => self.rotate = Some(parse_rotation(&text()?)?),
            "control" => self.control = Some(parse_signal(&text()?)?),
            "paused" => {
                bare()?;
                self.paused = true;
            }
            "output" => self.output = Some(OutputTemplate::new(OsStr::from_bytes(raw()?))?),
            "sort" => self.table.sort = text()?.parse()?,
            "limit" => self.table.limit = parse_limit(&text()?)?,
            "width" => self.table.width = Some(parse_width(&text()?)?),
            "memory" => self.memory = text()?.parse()?,
            "mode" => self.mode = parse_mode(&text()?)?,
            "perf" => self.perf = Some(text()?.parse()?),
            "no-summary" => {
                bare()?;
                self.table.summary = false;
            }
            "blocking" => {
                bare()?;
                self.blocking = true;
            }
            "all-threads" => bare()?,
            "format" => self.format = text()?.parse()?,
            flag => {
                bare()?;
                self.format = flag.parse()?;
            }
        }
        let names_format = |key: &str| key == "format" || key.parse::<Format>().is_ok();
        if names_format(key)
            && let Some(other) = given.iter().find(|other| names_format(other))
        {
            return Err(ConfigError::TwoFormats(other, key));
        }
        given.push(key);
        Ok(())
    }
}

/// Splits at the commas that no backslash protects, and takes those backslashes away.
fn split_items(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut items = vec![Vec::new()];
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte == b',' {
            items.push(Vec::new());
            continue;
        }
        let escaped = rest.next_if(|next| byte == b'\\' && matches!(next, b',' | b'\\'));
        if let Some(item) = items.last_mut() {
            item.push(escaped.unwrap_or(byte));
        }
    }
    items
}

fn find_key(key: &[u8]) -> Result<&'static str, ConfigError> {
    let key = String::from_utf8_lossy(key);
    match KEYS.into_iter().find(|known| *known == key) {
        Some("rate") => Ok("sampling-rate"),
        Some(known) => Ok(known),
        None => {
            let distance = |known: &str| edit_distance(&key, known);
            let nearest = KEYS.into_iter().min_by_key(|known| distance(known));
            let nearest = nearest.filter(|known| distance(known) <= 1 + known.len() / 4);
            Err(ConfigError::UnknownKey { key: key.escape_debug().to_string(), nearest })
        }
    }
}

/// Levenshtein's distance, in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(value: &str) -> Result<Option<Config>, ConfigError> {
        Config::from_env_value(OsStr::new(value))
    }

    fn sentence(value: &str) -> String {
        parse(value).unwrap_err().to_string()
    }

    #[test]
    fn switched_off_and_on() {
        for off in ["", "0", "off", "OFF", " 0 "] {
            assert_eq!(parse(off), Ok(None), "{off:?}");
        }
        for on in ["1", "on", "On"] {
            assert_eq!(parse(on), Ok(Some(Config::default())), "{on:?}");
        }
    }

    #[test]
    fn every_option() {
        let value = "rate=5khz,duration=2.5,output=/tmp/p_%p.txt,format=collapsed,sort=cumtime,\
                     limit=3, no-summary,width=80,blocking,memory=direct,mode=cpu,perf=jitdump,all-threads,\
                     rotate=1m,control=usr1,paused";
        let config = parse(value).unwrap().unwrap();
        let expected = Config {
            interval: Duration::from_micros(200),
            duration: Some(Duration::from_millis(2500)),
            delay: None,
            rotate: Some(Duration::from_secs(60)),
            control: Some(parse_signal("SIGUSR1").unwrap()),
            paused: true,
            blocking: true,
            memory: Memory::Direct,
            mode: Mode::Cpu,
            perf: Some(Perf::JitDump),
            format: Format::Collapsed,
            output: Some(OutputTemplate::new("/tmp/p_%p.txt").unwrap()),
            table: TableOptions {
                sort: SortKey::Cumtime,
                limit: 3,
                summary: false,
                width: Some(80),
            },
        };
        assert_eq!(config, expected);
        let format = |value: &str| parse(value).unwrap().unwrap().format;
        let delay = parse("delay=2s").unwrap().unwrap().delay;
        assert_eq!(delay, Some(Duration::from_secs(2)));
        for each in Format::ALL {
            assert_eq!(format(each.name()), each);
            assert_eq!(format(&format!("rate=5khz, {each},blocking")), each);
        }
        assert_eq!(format("html"), Format::Html);
    }

    #[test]
    fn any_path_can_be_an_output() {
        let output = |value: &[u8]| {
            let config = Config::from_env_value(OsStr::from_bytes(value)).unwrap().unwrap();
            config.output.unwrap().as_os_str().as_bytes().to_vec()
        };
        assert_eq!(output(br"output=a\,b\\c\d=e ,svg"), br"a,b\c\d=e ");
        assert_eq!(output(b"output= \xff"), b" \xff");
        assert_eq!(output(br"output=end\"), br"end\");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (value, expected) in [
            ("rate", "the option 'sampling-rate' needs a value: sampling-rate=…"),
            ("blocking=1", "the option 'blocking' takes no value; write only 'blocking'"),
            ("svg=1", "the option 'svg' takes no value; write only 'svg'"),
            ("table=15", "the option 'table' takes no value; write only 'table'"),
            ("tabel", "there is no option 'tabel'; did you mean 'table'?"),
            ("rate=1,sampling-rate=1", "the option 'sampling-rate' is given twice; give it once"),
            ("svg,svg", "the option 'svg' is given twice; give it once"),
            ("svg,format=svg", "'svg' and 'format' exclude each other; choose one format"),
            ("pstats,svg", "'pstats' and 'svg' exclude each other; choose one format"),
            ("html,flamegraph", "'html' and 'flamegraph' exclude each other; choose one format"),
            ("outptu=x", "there is no option 'outptu'; did you mean 'output'?"),
            (
                "sampling_rate=1",
                "there is no option 'sampling_rate'; did you mean 'sampling-rate'?",
            ),
            ("gecko", "there is no option 'gecko'"),
            ("=x", "there is no option ''"),
            ("mode=exception", "mode=exception is not available yet; wall, cpu and gil are"),
            (
                "sort=x\ny",
                "there is no sort key 'x\\ny'; it is one of nsamples, tottime, cumtime, \
                           sample-pct, cumul-pct, nsamples-cumul, name",
            ),
            ("perf=x", "there is no perf trampoline 'x'; it is one of map, jitdump"),
            ("output=", "the output path is empty; name a file"),
            ("paused", "'paused' needs a signal that begins sampling; add control=USR2"),
            (
                "paused,control=USR2,delay=1",
                "'paused' and 'delay' exclude each other; choose when sampling begins",
            ),
            (
                "control=TERM",
                "SIGTERM cannot be used for control, as it is there to end programs; USR2 can",
            ),
        ] {
            assert_eq!(sentence(value), expected);
        }
        for value in [",", "svg,", ",svg", "svg,,blocking", "svg, ,blocking"] {
            assert_eq!(parse(value), Err(ConfigError::EmptyItem), "{value}");
        }
    }

    fn any_config() -> impl Strategy<Value = Config> {
        let name = prop_oneof![
            Just(b"%p".to_vec()),
            Just(b"%i".to_vec()),
            Just(b"%%".to_vec()),
            proptest::collection::vec(1u8.., 0..8)
                .prop_map(|bytes| bytes.into_iter().filter(|byte| *byte != b'%').collect()),
        ];
        let output = proptest::collection::vec(name, 0..4)
            .prop_map(|names| OutputTemplate::new(OsString::from_vec(names.concat())).ok());
        let width = proptest::option::of(1usize..);
        let sort = proptest::sample::select(SortKey::ALL.to_vec());
        let table = (sort, 1usize.., any::<bool>(), width)
            .prop_map(|(sort, limit, summary, width)| TableOptions { sort, limit, summary, width });
        let time = |shortest: u64| {
            let length = (shortest..=300_000_000_000_000_000).prop_map(Duration::from_nanos);
            proptest::option::of(length)
        };
        let control = proptest::sample::select(ControlSignal::ALL.to_vec());
        let begin = prop_oneof![
            (time(1), proptest::option::of(control.clone()))
                .prop_map(|(delay, control)| (delay, control, false)),
            control.prop_map(|control| (None, Some(control), true)),
        ];
        (
            (1_000u64..=100_000_000_000).prop_map(Duration::from_nanos),
            (time(1), begin, time(100_000_000)),
            any::<bool>(),
            proptest::sample::select(Memory::ALL.to_vec()),
            (
                proptest::sample::select(Mode::ALL.to_vec()),
                proptest::option::of(proptest::sample::select(Perf::ALL.to_vec())),
            ),
            proptest::sample::select(Format::ALL.to_vec()),
            output,
            table,
        )
            .prop_map(
                |(interval, times, blocking, memory, (mode, perf), format, output, table)| {
                    let (duration, (delay, control, paused), rotate) = times;
                    #[rustfmt::skip]
                    let config = Config {
                        interval, duration, delay, rotate, control, paused, blocking, memory, mode, perf,
                        format, output, table,
                    };
                    config
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(config in any_config()) {
            let value = config.to_env_value();
            prop_assert_eq!(Config::from_env_value(&value), Ok(Some(config)));
        }

        #[test]
        fn no_value_is_too_strange_to_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(config)) = Config::from_env_value(OsStr::from_bytes(&bytes)) {
                prop_assert_eq!(Config::from_env_value(&config.to_env_value()), Ok(Some(config)));
            }
        }
    }
}
