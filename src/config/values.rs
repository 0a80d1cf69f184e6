//! How single option values are written: sampling rates, durations, modes, sizes of the table.

use std::time::Duration;

use super::{AsyncMode, ConfigError, Mode};
use crate::export::by_name;

const SLOWEST_HZ: f64 = 0.01;
const FASTEST_HZ: f64 = 1e6;
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The interval between samples that a sampling rate such as `10000`, `500hz`, `10k` or `1.5khz` asks for.
pub fn parse_rate(text: &str) -> Result<Duration, ConfigError> {
    const UNITS: [(&str, f64); 4] = [("mhz", 1e6), ("khz", 1e3), ("k", 1e3), ("hz", 1.0)];
    let rate = text.trim().to_ascii_lowercase();
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((rate.strip_suffix(unit)?, *factor)))
        .unwrap_or((&rate, 1.0));
    let Some(hz) = decimal(number).and_then(|n| n.parse::<f64>().ok()).map(|n| n * factor) else {
        return Err(ConfigError::Rate(text.escape_debug().to_string()));
    };
    if hz < SLOWEST_HZ {
        return Err(ConfigError::RateTooLow(text.escape_debug().to_string()));
    }
    if hz > FASTEST_HZ {
        return Err(ConfigError::RateTooHigh(text.escape_debug().to_string()));
    }
    Ok(Duration::from_nanos((1e9 / hz).round() as u64))
}

/// The rate of an interval, as [`parse_rate`] reads it back to the nanosecond.
pub(super) fn rate_text(interval: Duration) -> String {
    (1e9 / interval.as_nanos().max(1) as f64).to_string()
}

/// How much of a processor's time sampling may take, in hundredths of a percent: `1%`, `0.5%`.
pub fn parse_overhead(text: &str) -> Result<u32, ConfigError> {
    const WHOLE: f64 = 10_000.0;
    let malformed = || ConfigError::Overhead(text.escape_debug().to_string());
    let number = text.trim().strip_suffix('%').ok_or_else(malformed)?;
    let percent: f64 =
        decimal(number).and_then(|number| number.parse().ok()).ok_or_else(malformed)?;
    let hundredths = (percent * 100.0).round();
    if (1.0..=WHOLE).contains(&hundredths) { Ok(hundredths as u32) } else { Err(malformed()) }
}

/// A length of time such as `10`, `2.5`, `100ms`, `10s`, `5m` or `1h`; a bare number is in seconds.
pub fn parse_duration(text: &str) -> Result<Duration, ConfigError> {
    let length = parse_instant(text)?;
    let malformed = || ConfigError::Duration(text.escape_debug().to_string());
    if length.is_zero() { Err(malformed()) } else { Ok(length) }
}

/// As [`parse_duration`], but zero is one, too: the time since the start of a profile.
pub fn parse_instant(text: &str) -> Result<Duration, ConfigError> {
    // Multiplied by the first factor, divided by the second.
    const UNITS: [(&str, u32, u32); 4] =
        [("ms", 1, 1000), ("s", 1, 1), ("m", 60, 1), ("h", 3600, 1)];
    let lower = text.trim().to_ascii_lowercase();
    let (number, times, divided_by) = UNITS
        .iter()
        .find_map(|(unit, times, by)| Some((lower.strip_suffix(unit)?, *times, *by)))
        .unwrap_or((&lower, 1, 1));
    let malformed = || ConfigError::Duration(text.escape_debug().to_string());
    let number = decimal(number).ok_or_else(malformed)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Only digits are left, so a number that does not parse is one that is too large.
    let seconds = if whole.is_empty() { Ok(0) } else { whole.parse::<u64>() };
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    seconds
        .ok()
        .and_then(|seconds| Duration::new(seconds, nanos).checked_mul(times))
        .map(|length| length / divided_by)
        .filter(|length| *length <= LONGEST)
        .ok_or_else(|| ConfigError::DurationTooLong(text.escape_debug().to_string()))
}

/// A duration in seconds, as [`parse_duration`] reads it back exactly.
pub(super) fn duration_text(length: Duration) -> String {
    format!("{}.{:09}", length.as_secs(), length.subsec_nanos())
}

/// Whose time is to count.
pub fn parse_mode(text: &str) -> Result<Mode, ConfigError> {
    Ok(by_name("mode", Mode::ALL, Mode::name, text)?)
}

/// Which tasks are to be sampled.
pub fn parse_async_mode(text: &str) -> Result<AsyncMode, ConfigError> {
    Ok(by_name("async mode", AsyncMode::ALL, AsyncMode::name, text.trim())?)
}

/// The shortest time between two profiles of a rotation.
const SHORTEST_ROTATION: Duration = Duration::from_millis(100);

/// How long each profile of a rotation is.
pub fn parse_rotation(text: &str) -> Result<Duration, ConfigError> {
    let period = parse_duration(text)?;
    let too_short = || ConfigError::RotationTooShort(text.escape_debug().to_string());
    (period >= SHORTEST_ROTATION).then_some(period).ok_or_else(too_short)
}

/// A signal by which a running profile can be controlled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlSignal {
    name: &'static str,
    number: i32,
}

impl ControlSignal {
    /// Those that are left to a program's users, and by default do no more than end it.
    pub const ALL: [Self; 9] = [
        Self { name: "SIGUSR1", number: libc::SIGUSR1 },
        Self { name: "SIGUSR2", number: libc::SIGUSR2 },
        Self { name: "SIGHUP", number: libc::SIGHUP },
        Self { name: "SIGQUIT", number: libc::SIGQUIT },
        Self { name: "SIGALRM", number: libc::SIGALRM },
        Self { name: "SIGVTALRM", number: libc::SIGVTALRM },
        Self { name: "SIGPROF", number: libc::SIGPROF },
        Self { name: "SIGIO", number: libc::SIGIO },
        Self { name: "SIGPWR", number: libc::SIGPWR },
    ];

    /// The name, such as `SIGUSR2`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The system's number.
    pub fn number(self) -> i32 {
        self.number
    }
}

/// Signals that cannot control anything, and why not.
const UNFIT: [(&str, &str); 24] = [
    ("SIGKILL", "no program sees it"),
    ("SIGSTOP", "no program sees it"),
    ("SIGSEGV", "it reports a fault"),
    ("SIGBUS", "it reports a fault"),
    ("SIGFPE", "it reports a fault"),
    ("SIGILL", "it reports a fault"),
    ("SIGTRAP", "it reports a fault"),
    ("SIGSYS", "it reports a fault"),
    ("SIGABRT", "it reports a fault"),
    ("SIGTERM", "it is there to end programs"),
    ("SIGINT", "Python handles it"),
    ("SIGPIPE", "Python handles it"),
    ("SIGXFSZ", "Python handles it"),
    ("SIGXCPU", "the system sends it"),
    ("SIGCHLD", "the system sends it"),
    ("SIGWINCH", "the system sends it"),
    ("SIGSTKFLT", "the system sends it"),
    ("SIGURG", "threads are held still with it"),
    ("SIGCONT", "it is there to continue programs"),
    ("SIGTSTP", "it is there to stop programs"),
    ("SIGTTIN", "it is there to stop programs"),
    ("SIGTTOU", "it is there to stop programs"),
    ("SIGPOLL", "it is called SIGIO here"),
    ("SIGCLD", "the system sends it"),
];

/// A signal's name, such as `USR2` or `SIGUSR2`.
pub fn parse_signal(text: &str) -> Result<ControlSignal, ConfigError> {
    let given = text.trim().to_ascii_uppercase();
    let name = if given.starts_with("SIG") { given } else { format!("SIG{given}") };
    if let Some(signal) = ControlSignal::ALL.into_iter().find(|signal| signal.name == name) {
        return Ok(signal);
    }
    Err(match UNFIT.into_iter().find(|(unfit, _)| *unfit == name) {
        Some((name, why)) => ConfigError::UnfitSignal { name, why },
        None => ConfigError::NoSignal(text.escape_debug().to_string()),
    })
}

/// A number of table rows, at least one.
pub fn parse_limit(text: &str) -> Result<usize, ConfigError> {
    above_zero(text).ok_or_else(|| ConfigError::Limit(text.escape_debug().to_string()))
}

/// A number of columns, at least one.
pub fn parse_width(text: &str) -> Result<usize, ConfigError> {
    above_zero(text).ok_or_else(|| ConfigError::Width(text.escape_debug().to_string()))
}

fn above_zero(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|number| *number > 0)
}

/// The digits of a plain decimal number: no sign, no exponent, no `inf`.
fn decimal(text: &str) -> Option<&str> {
    let number = text.trim();
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let points = number.bytes().filter(|byte| *byte == b'.').count();
    (digits > 0 && points <= 1 && digits + points == number.len()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_in_every_spelling() {
        for (text, nanos) in [
            ("10000", 100_000),
            ("10khz", 100_000),
            ("10K", 100_000),
            (" 10 kHz ", 100_000),
            ("1.5khz", 666_667),
            ("1MHz", 1_000),
            ("100hz", 10_000_000),
            ("0.01", 100_000_000_000),
            (".5", 2_000_000_000),
        ] {
            assert_eq!(parse_rate(text).unwrap(), Duration::from_nanos(nanos), "{text}");
        }
    }

    #[test]
    fn absurd_rates_are_explained() {
        for text in ["", "abc", "-5", "nan", "inf", "1e3", "1.2.3", "khz", "10 k hz", "5ghz", "."] {
            let error = parse_rate(text).unwrap_err();
            assert_eq!(error, ConfigError::Rate(text.to_owned()));
        }
        assert_eq!(parse_rate("0"), Err(ConfigError::RateTooLow("0".into())));
        assert_eq!(parse_rate("0.001hz"), Err(ConfigError::RateTooLow("0.001hz".into())));
        assert_eq!(parse_rate("1.1mhz"), Err(ConfigError::RateTooHigh("1.1mhz".into())));
        let huge = "9".repeat(400);
        assert_eq!(parse_rate(&huge), Err(ConfigError::RateTooHigh(huge)));
    }

    #[test]
    fn durations_in_every_spelling() {
        for (text, millis) in [
            ("10", 10_000),
            ("2.5", 2_500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("100ms", 100),
            ("1h", 3_600_000),
            (".5 S", 500),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "0", "0ms", "-1", "nan", "ten", "1d", "1e9"] {
            assert_eq!(parse_duration(text), Err(ConfigError::Duration(text.into())), "{text}");
        }
        for text in ["400000000", "99999999999999999999", "18446744073709551615h"] {
            assert_eq!(parse_duration(text), Err(ConfigError::DurationTooLong(text.into())));
        }
    }

    #[test]
    fn rotations_are_not_too_short() {
        assert_eq!(parse_rotation("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_rotation("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_rotation("99ms"), Err(ConfigError::RotationTooShort("99ms".into())));
        assert_eq!(parse_rotation("x"), Err(ConfigError::Duration("x".into())));
    }

    #[test]
    fn signals_in_every_spelling() {
        for text in ["USR2", "SIGUSR2", "usr2", " SigUsr2 "] {
            assert_eq!(parse_signal(text).unwrap().number(), libc::SIGUSR2, "{text}");
        }
        for signal in ControlSignal::ALL {
            assert_eq!(parse_signal(signal.name()), Ok(signal));
        }
        let sentence = |text: &str| parse_signal(text).unwrap_err().to_string();
        assert_eq!(
            sentence("kill"),
            "SIGKILL cannot be used for control, as no program sees it; USR2 can"
        );
        assert_eq!(sentence("12"), "there is no signal '12'; write its name, such as USR2");
        assert_eq!(
            sentence("a\u{1b}"),
            "there is no signal 'a\\u{1b}'; write its name, such as USR2"
        );
    }

    #[test]
    fn overheads() {
        assert_eq!(
            ["1%", " 0.5% ", "100%", "0.01%"].map(parse_overhead),
            [100, 50, 10_000, 1].map(Ok)
        );
        for wrong in ["1", "%", "0%", "0.001%", "101%", "-1%", "1e1%", "half"] {
            assert_eq!(parse_overhead(wrong), Err(ConfigError::Overhead(wrong.into())));
        }
    }

    #[test]
    fn modes_limits_and_widths() {
        assert_eq!(parse_mode("wall"), Ok(Mode::Wall));
        assert_eq!(parse_mode(" cpu "), Ok(Mode::Cpu));
        assert_eq!(parse_mode("gil"), Ok(Mode::Gil));
        assert_eq!(parse_mode("exception"), Ok(Mode::Exception));
        let sentence = parse_mode("all").unwrap_err().to_string();
        assert_eq!(sentence, "there is no mode 'all'; it is one of wall, cpu, gil, exception");
        assert_eq!(parse_limit("7"), Ok(7));
        assert_eq!(parse_limit("0"), Err(ConfigError::Limit("0".into())));
        assert_eq!(parse_limit("-1"), Err(ConfigError::Limit("-1".into())));
        assert_eq!(parse_width("80"), Ok(80));
        assert_eq!(parse_width("0"), Err(ConfigError::Width("0".into())));
    }
}
