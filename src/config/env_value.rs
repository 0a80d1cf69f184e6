//! A configuration as one text, the value of `PYTHONSAMPLE`: reads it, and writes it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::{
    AsyncMode, Config, ConfigError, Format, OutputTemplate, parse_async_mode, parse_duration,
    parse_limit, parse_mode, parse_overhead, parse_rate, parse_rotation, parse_signal, parse_width,
    values,
};
use crate::profile::Pattern;

/// Every key of `PYTHONSAMPLE` but the formats, `rate` being another name of `sampling-rate`.
const KEYS: [&str; 31] = [
    "sampling-rate",
    "rate",
    "max-overhead",
    "duration",
    "delay",
    "rotate",
    "control",
    "paused",
    "output",
    "format",
    "sort",
    "limit",
    "no-summary",
    "width",
    "by",
    "color",
    "diff-flamegraph",
    "hide",
    "show",
    "blocking",
    "native",
    "memory",
    "mode",
    "no-gc",
    "async-aware",
    "async-mode",
    "opcodes",
    "perf",
    "subprocesses",
    "all-threads",
    "thread",
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
        let default = std::mem::take(&mut config.formats);
        for item in split_items(bytes) {
            config.set(&item, &mut given)?;
        }
        if config.formats.is_empty() {
            let named = config.output.as_ref().and_then(OutputTemplate::format);
            config.formats = named.map_or(default, |format| vec![format]);
        }
        config.checked().map(Some)
    }

    /// The value of `PYTHONSAMPLE` that [`Config::from_env_value`] reads back as this configuration.
    pub fn to_env_value(&self) -> OsString {
        let mut items = vec![
            format!("sampling-rate={}", values::rate_text(self.interval)),
            format!("sort={}", self.style.sort.name()),
            format!("by={}", self.style.by.name()),
            format!("memory={}", self.memory.name()),
            format!("mode={}", self.view.mode.name()),
        ];
        items.extend(self.formats.iter().map(Format::to_string));
        for (key, time) in
            [("duration", self.duration), ("delay", self.delay), ("rotate", self.rotate)]
        {
            items.extend(time.map(|time| format!("{key}={}", values::duration_text(time))));
        }
        let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
        items.extend(self.max_overhead.map(|most| format!("max-overhead={}%", percent(most))));
        items.extend(self.style.limit.map(|limit| format!("limit={limit}")));
        items.extend(self.style.width.map(|width| format!("width={width}")));
        items.extend(self.async_mode.map(|mode| format!("async-mode={}", mode.name())));
        items.extend(self.perf.map(|perf| format!("perf={}", perf.name())));
        items.extend(self.control.map(|signal| format!("control={}", signal.name())));
        for (key, is_set) in [
            ("paused", self.paused),
            ("blocking", self.blocking),
            ("opcodes", self.opcodes),
            ("native", self.native),
            ("subprocesses", self.subprocesses),
            ("no-gc", self.view.hides_gc),
            ("no-summary", !self.style.summary),
            ("color", self.style.is_colored),
        ] {
            items.extend(is_set.then(|| key.to_owned()));
        }
        let mut value = items.join(",").into_bytes();
        let mut add = |key: &str, text: &[u8]| {
            value.extend_from_slice(format!(",{key}=").as_bytes());
            for byte in text {
                if matches!(byte, b',' | b'\\') {
                    value.push(b'\\');
                }
                value.push(*byte);
            }
        };
        for (key, patterns) in
            [("thread", &self.view.threads), ("hide", &self.style.hide), ("show", &self.style.show)]
        {
            patterns.iter().for_each(|pattern| add(key, pattern.as_str().as_bytes()));
        }
        if let Some(baseline) = &self.style.baseline {
            add("diff-flamegraph", baseline.as_os_str().as_bytes());
        }
        if let Some(output) = &self.output {
            add("output", output.as_os_str().as_bytes());
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
        if given.contains(&key) && !["thread", "hide", "show"].contains(&key) {
            return Err(ConfigError::Twice(key));
        }
        let raw = || value.ok_or(ConfigError::NeedsValue(key));
        let text = || raw().map(String::from_utf8_lossy);
        let bare = || value.map_or(Ok(()), |_| Err(ConfigError::TakesNoValue(key)));
        match key {
            "sampling-rate" => self.interval = parse_rate(&text()?)?,
            "max-overhead" => self.max_overhead = Some(parse_overhead(&text()?)?),
            "duration" => self.duration = Some(parse_duration(&text()?)?),
            "delay" => self.delay = Some(parse_duration(&text()?)?),
            "rotate" => self.rotate = Some(parse_rotation(&text()?)?),
            "control" => self.control = Some(parse_signal(&text()?)?),
            "paused" => {
                bare()?;
                self.paused = true;
            }
            "output" => self.output = Some(OutputTemplate::new(OsStr::from_bytes(raw()?))?),
            "sort" => self.style.sort = text()?.parse()?,
            "limit" => self.style.limit = Some(parse_limit(&text()?)?),
            "by" => self.style.by = text()?.parse()?,
            "diff-flamegraph" => {
                self.style.baseline = Some(PathBuf::from(OsStr::from_bytes(raw()?)));
                if !self.formats.contains(&Format::Html) {
                    self.formats.push(Format::Html);
                }
            }
            "thread" => self.view.threads.push(text()?.parse::<Pattern>()?),
            "hide" => self.style.hide.push(text()?.parse::<Pattern>()?),
            "show" => self.style.show.push(text()?.parse::<Pattern>()?),
            "color" => {
                bare()?;
                self.style.is_colored = true;
            }
            "width" => self.style.width = Some(parse_width(&text()?)?),
            "memory" => self.memory = text()?.parse()?,
            "mode" => self.view.mode = parse_mode(&text()?)?,
            "no-gc" => {
                bare()?;
                self.view.hides_gc = true;
            }
            "async-aware" => {
                bare()?;
                self.async_mode.get_or_insert(AsyncMode::Running);
            }
            "async-mode" => self.async_mode = Some(parse_async_mode(&text()?)?),
            "opcodes" => {
                bare()?;
                self.opcodes = true;
            }
            "perf" => self.perf = Some(text()?.parse()?),
            "no-summary" => {
                bare()?;
                self.style.summary = false;
            }
            "blocking" => {
                bare()?;
                self.blocking = true;
            }
            "native" => {
                bare()?;
                self.native = true;
            }
            "all-threads" => bare()?,
            "subprocesses" => {
                bare()?;
                self.subprocesses = true;
            }
            "format" => self.add_format(text()?.trim().parse()?)?,
            flag => {
                bare()?;
                self.add_format(flag.parse()?)?;
            }
        }
        given.push(key);
        Ok(())
    }

    fn add_format(&mut self, format: Format) -> Result<(), ConfigError> {
        if self.formats.contains(&format) {
            return Err(ConfigError::Twice(format.name()));
        }
        self.formats.push(format);
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
    let known = || KEYS.into_iter().chain(Format::ALL.into_iter().flat_map(Format::names));
    match known().find(|known| *known == key) {
        Some("rate") => Ok("sampling-rate"),
        Some(known) => Ok(known),
        None => {
            let distance = |known: &str| edit_distance(&key, known);
            let nearest = known().min_by_key(|known| distance(known));
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
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{By, ControlSignal, Memory, Mode, Perf, SortKey, Style, View};

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
        let value = "rate=5khz,max-overhead=0.5%,duration=2.5,output=/tmp/p_%p,format=collapsed,diff-flamegraph=/b\\,,sort=cumtime,\
                     limit=3, no-summary,width=80,by=function,color,hide=a\\,*,hide=b,show=?,blocking,native,memory=direct,mode=cpu,no-gc,all-threads,thread=w\\,*,\
                     async-mode=all,async-aware,opcodes,perf=jitdump,\
                     rotate=1m,control=usr1,paused";
        let config = parse(value).unwrap().unwrap();
        let expected = Config {
            interval: Duration::from_micros(200),
            max_overhead: Some(50),
            duration: Some(Duration::from_millis(2500)),
            delay: None,
            rotate: Some(Duration::from_secs(60)),
            control: Some(parse_signal("SIGUSR1").unwrap()),
            paused: true,
            blocking: true,
            native: true,
            memory: Memory::Direct,
            async_mode: Some(AsyncMode::All),
            opcodes: true,
            view: View { mode: Mode::Cpu, threads: vec!["w,*".parse().unwrap()], hides_gc: true },
            perf: Some(Perf::JitDump),
            formats: vec![Format::Collapsed, Format::Html],
            output: Some(OutputTemplate::new("/tmp/p_%p").unwrap()),
            subprocesses: false,
            style: Style {
                sort: SortKey::Cumtime,
                limit: Some(3),
                summary: false,
                width: Some(80),
                by: By::Function,
                is_colored: true,
                hide: vec!["a,*".parse().unwrap(), "b".parse().unwrap()],
                show: vec!["?".parse().unwrap()],
                baseline: Some("/b,".into()),
            },
        };
        assert_eq!(config, expected);
        let formats = |value: &str| parse(value).unwrap().unwrap().formats;
        let delay = parse("delay=2s").unwrap().unwrap().delay;
        assert_eq!(delay, Some(Duration::from_secs(2)));
        for each in Format::ALL {
            assert_eq!(formats(each.name()), [each]);
            assert_eq!(formats(&format!("rate=5khz, {each},blocking")), [each]);
        }
        assert_eq!(formats("html"), [Format::Html]);
        let two = [Format::Svg, Format::Collapsed];
        assert_eq!([formats("svg,collapsed"), formats("format=svg,collapsed")], [two, two]);
    }

    #[test]
    fn several_formats_have_names_of_their_own() {
        let names = |value: &str| {
            let config = parse(value).unwrap().unwrap();
            let outputs = config.outputs().into_iter();
            let names = outputs.map(|(_, name)| name.as_os_str().to_str().unwrap().to_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names("svg"), "pysamp_%p.svg");
        assert_eq!(names("svg,collapsed"), "pysamp_%p.svg pysamp_%p.txt");
        assert_eq!(names("collapsed,table"), "pysamp_%p.collapsed.txt pysamp_%p.table.txt");
        assert_eq!(names("svg,output=x.html"), "x.html");
        assert_eq!(names("svg,html,output=d/x.html"), "d/x.svg d/x.html");
        assert_eq!(names("table,collapsed,output=x.1"), "x.1.table.txt x.1.collapsed.txt");
        // What is a page when it is alone is one among others.
        assert_eq!(names("format=heatmap,output=%p.html"), "%p.html");
        assert_eq!(names("heatmap,html,output=x.html"), "x.heatmap.html x.html");
        assert_eq!(names("heatmap,html,output=x"), "x.heatmap x.html");
    }

    #[test]
    fn opcodes_are_shown_by_some_formats() {
        let idle = |value: &str| parse(value).unwrap().unwrap().idle_option();
        let sentence = idle("opcodes,collapsed,svg").unwrap();
        assert!(sentence.ends_with("flamegraph, jsonl, heatmap, gecko, binary, recording"));
        for useful in ["svg", "opcodes", "opcodes,heatmap", "svg,opcodes,recording"] {
            assert_eq!(idle(useful), None, "{useful}");
        }
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
            ("svg,format=svg", "the option 'svg' is given twice; give it once"),
            ("html,flamegraph", "the option 'flamegraph' is given twice; give it once"),
            ("outptu=x", "there is no option 'outptu'; did you mean 'output'?"),
            (
                "sampling_rate=1",
                "there is no option 'sampling_rate'; did you mean 'sampling-rate'?",
            ),
            ("nothing", "there is no option 'nothing'"),
            ("=x", "there is no option ''"),
            ("mode=idle", "there is no mode 'idle'; it is one of wall, cpu, gil, exception"),
            (
                "sort=x\ny",
                "there is no sort key 'x\\ny'; it is one of nsamples, tottime, cumtime, \
                           sample-pct, cumul-pct, nsamples-cumul, name",
            ),
            ("async-mode=waiting", "there is no async mode 'waiting'; it is one of running, all"),
            ("perf=x", "there is no perf trampoline 'x'; it is one of map, jitdump"),
            ("output=", "the output path is empty; name a file"),
            (
                "subprocesses,rotate=1m",
                "'subprocesses' and 'rotate' exclude each other; each process can write its own profiles",
            ),
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
        let limit = proptest::option::of(1usize..);
        let by = proptest::sample::select(By::ALL.to_vec());
        let patterns = || {
            let pattern =
                "[a-z,\\\\*=]{1,4}".prop_filter_map("no pattern", |text| text.parse().ok());
            proptest::collection::vec(pattern, 0..3)
        };
        let style = (sort, limit, any::<bool>(), width, by, any::<bool>(), patterns(), patterns())
            .prop_map(|(sort, limit, summary, width, by, is_colored, hide, show)| Style {
                sort,
                limit,
                summary,
                width,
                by,
                is_colored,
                hide,
                show,
                baseline: None,
            });
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
            (any::<[bool; 4]>(), proptest::option::of(1..=10_000_u32)),
            proptest::sample::select(Memory::ALL.to_vec()),
            proptest::option::of(proptest::sample::select(AsyncMode::ALL.to_vec())),
            (
                proptest::sample::select(Mode::ALL.to_vec()),
                patterns(),
                any::<bool>(),
                proptest::option::of(proptest::sample::select(Perf::ALL.to_vec())),
            ),
            proptest::sample::subsequence(Format::ALL.to_vec(), 1..=Format::ALL.len())
                .prop_shuffle(),
            output,
            style,
        )
            .prop_map(
                |(interval, times, ([blocking, native, subprocesses, opcodes], max_overhead), memory, async_mode, (mode, threads, hides_gc, perf), formats, output, style)| {
                    let (duration, (delay, control, paused), rotate) = times;
                    let subprocesses = subprocesses && rotate.is_none();
                    #[rustfmt::skip]
                    let config = Config {
                        interval, max_overhead, duration, delay, rotate, control, paused, blocking, native, memory, async_mode, opcodes,
                        view: View { mode, threads, hides_gc }, perf, formats, output, subprocesses, style,
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
