//! Threads that come and go keep their stacks apart, and are called as Python calls them.

use std::collections::{HashMap, HashSet};

use crate::frames::MAY_FAIL;
use crate::support::{Cores, ensure, on_each, profile, recorded};

#[test]
fn each_thread_shows_its_own_functions() {
    on_each(Cores::one, |python| {
        let run = profile(python, "threads_many.py", &[], "rate=1khz")?;
        ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
        let truth = run.json()?;
        let main = truth["main"].as_u64().ok_or("no main thread was printed")?;
        // More than one name where the system gave an id a second time.
        let mut numbers: HashMap<u64, Vec<&str>> = HashMap::new();
        for thread in truth["threads"].as_array().ok_or("no threads were printed")? {
            let number = thread[1].as_str().and_then(|name| name.strip_prefix("t-"));
            numbers.entry(thread[0].as_u64().unwrap()).or_default().push(number.unwrap());
        }

        let mut seen = HashSet::new();
        for stack in &run.collapsed {
            let own = |name: &str| {
                let number = name.rsplit_once('_').map_or("", |(_, number)| number);
                numbers.get(&stack.tid).is_some_and(|own| own.contains(&number))
            };
            for frame in stack.frames.iter().filter(|frame| frame.file.starts_with("work_")) {
                // The main thread runs the bodies of these files, which define the functions.
                if stack.tid == main && frame.name == "<module>" {
                    continue;
                }
                let in_its_file = frame.name.rsplit('_').next() == frame.file.get(5..9);
                ensure(own(&frame.name) && in_its_file, || format!("{stack:?}"))?;
                seen.insert(frame.name.rsplit('_').next().unwrap().to_owned());
            }
            let known = stack.tid == main || numbers.contains_key(&stack.tid);
            ensure(known, || format!("no thread of this program: {stack:?}"))?;
        }
        let all: HashSet<String> =
            numbers.values().flatten().map(|number| (*number).to_owned()).collect();
        let missed: Vec<&String> = all.difference(&seen).collect();
        ensure(missed.is_empty(), || format!("never seen of {}: {missed:?}", all.len()))?;
        let failed = run.failed_share()?;
        ensure(failed <= MAY_FAIL, || format!("{failed} of the samples failed"))
    });
}

#[test]
fn threads_have_their_python_names() {
    on_each(Cores::one, |python| {
        for memory in ["auto", "syscall"] {
            let options = format!("rate=200hz,memory={memory}");
            let (truth, profile) = recorded(python, "threads_named.py", &[], &options)?;
            let truth = truth.as_object().ok_or("no names were printed")?;
            let mut counts = vec![0; profile.threads.len()];
            for sample in &profile.samples {
                counts[sample.thread.0 as usize] += sample.count;
            }
            // Up to 3.11 a thread that is not born yet passes for its parent, so that a tid may come
            // twice: the one of most samples is it.
            let mut sampled: Vec<usize> =
                (0..counts.len()).filter(|&one| counts[one] > 0).collect();
            sampled.sort_by_key(|&one| counts[one]);
            let found: HashMap<String, &str> = sampled
                .into_iter()
                .map(|one| &profile.threads[one])
                .map(|thread| (thread.tid.to_string(), &*thread.name))
                .collect();
            for (tid, name) in truth {
                let found = found.get(tid).copied();
                ensure(found == name.as_str(), || format!("{memory}: {name} is {found:?}"))?;
            }
            ensure(found.len() == truth.len(), || format!("{found:?} of {truth:?}"))?;
        }
        Ok(())
    });
}
