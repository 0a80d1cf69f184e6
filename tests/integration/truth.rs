//! Shares of time are those that the program itself measures.

use crate::frames::MAY_FAIL;
use crate::support::{Cores, ensure, on_each, profile};

/// A share may be off by one percentage point: the sampler promises that much.
const SHARE: f64 = 0.01;

#[test]
fn shares_are_those_of_the_cpu_time() {
    on_each(Cores::all, |python| {
        let run = profile(python, "truth.py", &["--seconds", "3"], "rate=10khz")?;
        ensure(run.status.success(), || format!("{}: {}", run.status, run.stderr))?;
        let failed = run.failed_share()?;
        ensure(failed <= MAY_FAIL, || format!("{failed} of the samples failed"))?;
        let truth = run.json()?;
        // Not of wall time: when the whole machine stands still, nobody samples.
        let truth = truth["cpu_share_of_dense"].as_f64().ok_or("no truth was printed")?;
        let samples_in = |part: &str| -> f64 {
            let inside = run.collapsed.iter().filter(|stack| {
                stack.frames.iter().any(|frame| frame.file == "truth.py" && frame.name == part)
            });
            inside.map(|stack| stack.count as f64).sum()
        };
        let (dense, flat) = (samples_in("dense"), samples_in("flat"));
        let found = dense / (dense + flat);
        // Were the samples independent, which is the worst case: the phases are much longer.
        let noise = 3.0 * (truth * (1.0 - truth) / (dense + flat)).sqrt();
        println!("{}: {found:.4} reported, {truth:.4} true, {noise:.4} noise", python.name);
        ensure((found - truth).abs() <= SHARE, || {
            format!("{found:.4} reported of call-dense code that took {truth:.4}")
        })?;
        ensure(noise < SHARE, || format!("too few samples to tell: {}", dense + flat))
    });
}
