//! One profile of a program and all processes that it starts.

use std::collections::HashMap;
use std::process::Command;

use pysamp::profile::recording;
use serde_json::Value;

use crate::support::{Cores, ensure, on_each, program, run_to_end};

const PYSAMP: &str = env!("CARGO_BIN_EXE_pysamp");

#[test]
fn all_processes_are_in_one_profile() {
    on_each(Cores::one, |python| {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = directory.path().join("all.pysamp");
        let mut command = Command::new(PYSAMP);
        command.args(["run", "--subprocesses", "--recording", "-o"]).arg(&file);
        command.arg("--python").arg(&python.path).arg(program("processes.py"));
        command.env_remove("LD_PRELOAD").env_remove("PYTHONSAMPLE");
        let ended = run_to_end(&mut command)?;
        let [stdout, stderr] = [&ended.output.stdout, &ended.output.stderr]
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let truth: Value = serde_json::from_str(stdout.lines().last().unwrap_or_default())
            .map_err(|error| format!("{error}: {stderr}"))?;
        let (profile, damage) =
            recording::read_file(&file).map_err(|error| format!("{error}: {stderr}"))?;
        ensure(damage.is_none(), || format!("{damage:?}"))?;
        let mut counts: HashMap<u64, u64> = HashMap::new();
        for sample in &profile.samples {
            let process = profile.process(profile.thread(sample.thread));
            *counts.entry(process.pid.into()).or_default() += sample.count;
        }
        // At a sample a millisecond, most of what each is busy for.
        let expected = [
            ("fork", 100),
            ("spawn", 100),
            ("forkserver", 100),
            ("subprocess", 100),
            ("short", 20),
            ("_exit", 150),
            ("killed", 150),
        ];
        for (kind, least) in expected {
            let pid = truth["pids"][kind].as_u64().ok_or_else(|| format!("no {kind}: {stdout}"))?;
            let count = counts.get(&pid).copied().unwrap_or(0);
            ensure(count >= least, || format!("{count} samples of {kind}, {pid}: {stderr}"))?;
        }
        let child = truth["pids"]["subprocess"].as_u64().unwrap_or(0);
        let own = truth["own"].as_u64().unwrap_or(0);
        let of_pid = |pid: u64| profile.processes.iter().find(|one| u64::from(one.pid) == pid);
        ensure(of_pid(child).is_some_and(|one| u64::from(one.parent_pid) == own), || {
            format!("the parent of {child} is not {own}: {:?}", profile.processes)
        })?;
        let lines: Vec<&str> = stderr.lines().collect();
        ensure(lines.len() == 1 && lines[0].starts_with("pysamp: wrote "), || stderr.clone())
    });
}
