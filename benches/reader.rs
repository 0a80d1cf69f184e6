//! What reading costs, on captured images of real interpreters: walks, snapshots, line tables.
//!
//! `direct` reads as guarded loads do, `batched` as `process_vm_readv` does: ahead, in whole pages.
//! The image takes the place of the system call, so that only the reader's own work is measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../tests/support/capture.rs"]
mod capture;
#[allow(dead_code, unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use pysamp::reader::frames::Walker;
use pysamp::sampler::snapshot::Outcome;
use pysamp::sampler::target::Target;

use capture::{Capture, capture};
use support::Interpreter;

const DEPTHS: [usize; 2] = [25, 100];

/// What differs in the way frames are found.
fn family(interpreter: &Interpreter) -> &'static str {
    match interpreter.minor().1 {
        ..=10 => "frame objects",
        11..=12 => "data stack",
        _ if interpreter.free_threaded => "debug offsets, no GIL",
        _ => "debug offsets",
    }
}

/// The newest interpreter of each family.
fn interpreters() -> Vec<&'static Interpreter> {
    let mut newest: Vec<&Interpreter> = Vec::new();
    for interpreter in support::supported().iter().filter(|one| !one.debug) {
        match newest.iter_mut().find(|one| family(one) == family(interpreter)) {
            Some(one) => *one = interpreter,
            None => newest.push(interpreter),
        }
    }
    newest
}

fn walk(criterion: &mut Criterion, name: &str, captured: &Capture, depth: usize) {
    let mut group = criterion.benchmark_group(format!("walk/{name}"));
    group.throughput(Throughput::Elements(depth as u64));
    for (method, batched) in [("direct", false), ("batched", true)] {
        let image = captured.image.clone().preferring_batches(batched);
        let layout = &captured.build.layout;
        let mut walker = Walker::default();
        let mut frames = Vec::new();
        group.bench_function(BenchmarkId::new(method, depth), |bencher| {
            bencher.iter(|| {
                let walk = walker.walk(&image, layout, captured.thread.at, &mut frames);
                assert!(walk.is_ok() && black_box(&frames).len() == depth);
            });
        });
    }
    group.finish();
}

fn snapshot(criterion: &mut Criterion, name: &str, captured: &Capture, depth: usize) {
    let mut group = criterion.benchmark_group(format!("snapshot/{name}"));
    group.throughput(Throughput::Elements(depth as u64));
    let image = captured.image.clone().preferring_batches(false);
    let mut snapshotter = captured.snapshotter();
    let mut target = Target::default();
    group.bench_function(BenchmarkId::new("known", depth), |bencher| {
        bencher.iter(|| {
            let outcome = snapshotter.take(&image, &captured.thread, &mut target);
            assert_eq!(outcome, Outcome::Stack);
        });
    });
    group.bench_function(BenchmarkId::new("first", depth), |bencher| {
        bencher.iter_with_large_drop(|| {
            let (mut snapshotter, mut target) = (captured.snapshotter(), Target::default());
            let outcome = snapshotter.take(&image, &captured.thread, &mut target);
            assert_eq!(outcome, Outcome::Stack);
            (snapshotter, target)
        });
    });
    group.finish();
}

fn line_table(criterion: &mut Criterion, name: &str, captured: &Capture) {
    let mut snapshotter = captured.snapshotter();
    let mut target = Target::default();
    let outcome = snapshotter.take(&captured.image, &captured.thread, &mut target);
    assert_eq!(outcome, Outcome::Stack);
    // A function of 26 lines, at its last.
    let frame = target.stack[1];
    assert_eq!(snapshotter.codes.locate(frame.code, frame.index).line, 26);
    criterion.bench_function(&format!("line table/{name}"), |bencher| {
        bencher.iter(|| snapshotter.codes.locate(black_box(frame.code), black_box(frame.index)));
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(30)
        .configure_from_args();
    for interpreter in interpreters() {
        let name = format!("{} ({})", family(interpreter), interpreter.name);
        for depth in DEPTHS {
            let captured = capture(interpreter, depth).unwrap();
            walk(&mut criterion, &name, &captured, depth);
            snapshot(&mut criterion, &name, &captured, depth);
            if depth == DEPTHS[0] {
                line_table(&mut criterion, &name, &captured);
            }
        }
    }
    criterion.final_summary();
}
