//! Forks and spawns by the hundred: nothing hangs, and each child that took a sample has a profile.

use std::env;

use crate::support::{Cores, ensure, on_each, profile};

#[test]
fn children_by_the_hundred_have_their_profiles() {
    // Forks, processes by subprocess, and workers of a pool that leave at once.
    let sizes = match env::var_os("PYSAMP_LONG") {
        Some(_) => ["2000", "200", "50"],
        None => ["60", "4", "6"],
    };
    on_each(Cores::one, |python| {
        let run = profile(python, "forks.py", &sizes, "rate=10khz")?;
        ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
        let truth = run.json()?;
        let lived: Vec<u64> =
            truth["lived"].as_array().unwrap().iter().map(|pid| pid.as_u64().unwrap()).collect();
        let without: Vec<_> =
            lived.iter().filter(|&&pid| !run.followed.contains(&(pid as u32))).collect();
        ensure(without.is_empty(), || {
            format!("{without:?} of {} left no profile: {}", lived.len(), run.stderr)
        })?;
        let expected: usize = sizes.iter().map(|size| size.parse::<usize>().unwrap()).sum();
        let ended = truth["ended"].as_u64().unwrap();
        ensure(ended == expected as u64, || format!("{ended} of {expected} ended well"))?;
        let own = run.own_stderr();
        ensure(own.is_empty(), || own)?;
        ensure(run.samples() > 20, || format!("{} samples", run.samples()))
    });
}

#[test]
fn descriptors_are_the_programs_alone() {
    let children = if env::var_os("PYSAMP_LONG").is_some() { "1000" } else { "40" };
    on_each(Cores::one, |python| {
        let run = profile(python, "descriptors.py", &[children], "rate=10khz")?;
        ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
        let truth = run.json()?;
        ensure(truth["wrong"] == serde_json::json!([]), || truth["wrong"].to_string())?;
        let own = run.own_stderr();
        ensure(own.is_empty(), || own)?;
        ensure(!run.pysamp_lines().is_empty(), || run.stderr.clone())
    });
}
