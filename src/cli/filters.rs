//! The options for which part of a recording is shown.

use std::borrow::Cow;
use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::config::parse_instant;
use crate::export::one_line;
use crate::profile::{Pattern, Profile};

#[derive(Args)]
pub(super) struct FilterArgs {
    /// Only this thread, by name or id; * stands for anything
    #[arg(long = "thread", value_name = "NAME|TID", help_heading = "Filters")]
    #[arg(value_parser = str::parse::<Pattern>)]
    threads: Vec<Pattern>,

    /// Only this process, by the name of the program or id
    #[arg(long = "process", value_name = "NAME|PID", help_heading = "Filters")]
    #[arg(value_parser = str::parse::<Pattern>)]
    processes: Vec<Pattern>,

    /// Only what is in, or called by, this function, by its name or the path of its file
    #[arg(long = "function", value_name = "PATTERN", help_heading = "Filters")]
    #[arg(value_parser = str::parse::<Pattern>)]
    functions: Vec<Pattern>,

    /// Only from this time after the start on, such as 2s or 500ms
    #[arg(long, value_name = "TIME", value_parser = parse_instant, help_heading = "Filters")]
    #[arg(allow_negative_numbers = true)]
    from: Option<Duration>,

    /// Only up to this time after the start
    #[arg(long, value_name = "TIME", value_parser = parse_instant, help_heading = "Filters")]
    #[arg(allow_negative_numbers = true)]
    to: Option<Duration>,
}

impl FilterArgs {
    /// Refuses what can leave nothing.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let to = self.to.unwrap_or(Duration::MAX);
        if self.from.unwrap_or_default() < to {
            return Ok(());
        }
        Err(Failure::usage("nothing is between '--from' and '--to'; the second has to be later"))
    }

    /// The part of a profile that was asked for. That there is none is a failure.
    pub(super) fn part_of(&self, profile: Profile) -> Result<Profile, Failure> {
        let mut part = profile;
        if !self.processes.is_empty() {
            part = some(part.of_processes(&self.processes), || {
                let all = part.processes.iter().map(|p| format!("{} ({})", p.program, p.pid));
                format!("no process is {}; there is {}", or(&self.processes), list(all))
            })?;
        }
        if !self.threads.is_empty() {
            part = some(part.of_threads(&self.threads), || {
                let all = part.threads.iter().map(|thread| match &*thread.name {
                    "" => thread.tid.to_string(),
                    name => format!("{name} ({})", thread.tid),
                });
                format!("no thread is {}; there is {}", or(&self.threads), list(all))
            })?;
        }
        if self.from.is_some() || self.to.is_some() {
            if !part.has_timeline() {
                return Err(Failure::broken(
                    "the recording does not tell when samples were taken; leave out '--from' and '--to'",
                ));
            }
            let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let range = self.from.map_or(0, ns)..self.to.map_or(u64::MAX, ns);
            part = some(part.between(range), || {
                let length = part.meta.duration_ns as f64 / 1e9;
                format!("nothing was sampled in that time; the recording is {length:.1} s long")
            })?;
        }
        if !self.functions.is_empty() {
            part = some(part.with_functions(&self.functions), || {
                format!("no function that was sampled is {}", or(&self.functions))
            })?;
        }
        Ok(part)
    }
}

fn some(part: Cow<'_, Profile>, why_not: impl Fn() -> String) -> Result<Profile, Failure> {
    match part.samples.is_empty() {
        true => Err(Failure::broken(one_line(&why_not()))),
        false => Ok(part.into_owned()),
    }
}

fn or(patterns: &[Pattern]) -> String {
    patterns.iter().map(|pattern| format!("'{pattern}'")).collect::<Vec<_>>().join(" or ")
}

/// The first of some names.
fn list(names: impl Iterator<Item = String>) -> String {
    const MOST: usize = 5;
    let mut names: Vec<String> = names.take(MOST + 1).collect();
    if names.len() > MOST {
        names[MOST] = "more".to_owned();
    }
    names.join(", ")
}
