//! What each mode counts is what the program itself measures.

use serde_json::Value;

use crate::support::{Cores, ensure, flame_graph, on_each};

/// A share may be off by two percentage points.
const SHARE: f64 = 0.02;

/// The flame graph's nanoseconds below functions of the program, by name.
fn spent(page: &Value, name: &str) -> f64 {
    let column = |key: &str| -> Vec<u64> {
        page[key].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    let [functions, lines, parents, line_of] =
        ["functions", "lines", "parents", "lineOf"].map(column);
    let is_named = |node: u64| {
        let function = lines[2 * line_of[node as usize - 1] as usize] as usize;
        page["strings"][functions[3 * function + 1] as usize] == name
    };
    let is_below = |mut node: u64| loop {
        match node {
            0 => break false,
            _ if is_named(node) => break true,
            _ => node = parents[node as usize - 1],
        }
    };
    column("samples").chunks(4).filter(|row| is_below(row[1])).map(|row| row[3] as f64).sum()
}

fn is_close(what: &str, found: f64, truth: f64, whole: f64) -> Result<(), String> {
    println!("{what}: {:.4} of {:.4}", found / 1e9, truth / 1e9);
    ensure((found - truth).abs() <= SHARE * whole, || {
        format!("{what} took {:.4} s, {:.4} s reported", truth / 1e9, found / 1e9)
    })
}

#[test]
fn cpu_time_is_what_the_threads_have_used() {
    on_each(Cores::all, |python| {
        let [truth, page] = flame_graph(python, "modes.py", "mode=cpu")?;
        let truth = |name: &str| truth[name].as_f64().unwrap_or(f64::NAN);
        for name in ["naps", "crunch", "contend"] {
            is_close(
                &format!("{} {name}", python.name),
                spent(&page, name),
                truth(name),
                truth(name),
            )?;
        }
        Ok(())
    });
}

#[test]
fn the_gil_is_held_by_who_runs_python_code() {
    on_each(Cores::all, |python| {
        let [truth, page] = flame_graph(python, "modes.py", "mode=gil")?;
        let truth = |name: &str| truth[name].as_f64().unwrap_or(f64::NAN);
        let check = |name: &str, held: f64, whole: f64| {
            is_close(&format!("{} {name}", python.name), spent(&page, name), held, whole)
        };
        check("naps", truth("naps_wall") - truth("naps_result"), truth("naps_wall"))?;
        check("crunch", 0.0, truth("crunch_wall"))?;
        let both = truth("contend_span");
        if python.free_threaded {
            return check("contend", 2.0 * both, 2.0 * both);
        }
        // Who runs has it; while it is handed on nobody has; and never two at once.
        let least = truth("contend") - SHARE * both;
        ensure(spent(&page, "contend") >= least, || {
            format!("{} of {} s of CPU time", spent(&page, "contend"), truth("contend"))
        })?;
        ensure(spent(&page, "contend") <= both * 1.001, || "held by two at once".to_owned())
    });
}
