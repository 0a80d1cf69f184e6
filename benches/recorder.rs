//! What counting a sample costs, and what making a profile of all samples costs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../tests/support/capture.rs"]
mod capture;
#[allow(dead_code, unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use pysamp::os::shared_file;
use pysamp::profile::Meta;
use pysamp::reader::codes::Located;
use pysamp::reader::threads::ThreadState;
use pysamp::recorder::Recorder;
use pysamp::sampler::Sink;
use pysamp::sampler::activity::{Spent, State};
use pysamp::sampler::snapshot::{Outcome, Snapshotter};
use pysamp::sampler::target::Target;

use capture::capture;

const DEPTH: usize = 25;
const INTERVAL_NS: u64 = 1_000_000;
const SPENT: Spent =
    Spent { count: 1, at_ns: 0, state: State::ON_CPU, wall_ns: INTERVAL_NS, cpu_ns: INTERVAL_NS };
const THREAD: ThreadState = ThreadState { at: 0x1000, ident: 0, tid: 1, interpreter: 0 };
/// Distinct stacks of the profile that is made at the end.
const STACKS: usize = 10_000;

/// Stacks that part at random depths, each with how many of its frames are as in the one before.
fn stacks(stack: &[Located]) -> Vec<(Vec<Located>, usize)> {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut current = stack.to_vec();
    let mut parting = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let unchanged = DEPTH - 1 - random.trailing_zeros() as usize % DEPTH;
        for frame in &mut current[unchanged..] {
            frame.index = (random >> 32) as i32 % 200;
        }
        (current.clone(), unchanged)
    };
    (0..STACKS).map(|_| parting()).collect()
}

fn recorder(stack: &[Located]) -> Recorder {
    let mut recorder = Recorder::new(0);
    let thread = recorder.thread(&THREAD);
    recorder.sample(thread, stack, 0, false, SPENT);
    recorder
}

/// What the mirror on disk adds, by either way to store.
fn spool(criterion: &mut Criterion, snapshotter: &Snapshotter, stack: &[Located]) {
    let directory = tempfile::tempdir().unwrap();
    for (name, caught) in [("stores", true), ("system calls", false)] {
        let mut recorder = recorder(stack);
        recorder.begin_spool(&directory.path().join(name), &Meta::default()).unwrap();
        shared_file::set_caught(caught);
        criterion.bench_function(&format!("same stack, recorded by {name}"), |bencher| {
            bencher.iter(|| {
                recorder.sample(0, black_box(stack), DEPTH, false, SPENT);
                recorder.update_spool(&snapshotter.codes, INTERVAL_NS);
            });
        });
    }
}

fn record(criterion: &mut Criterion, stack: &[Located]) {
    let mut group = criterion.benchmark_group("record");
    let mut same = recorder(stack);
    group.bench_function("same stack", |bencher| {
        bencher.iter(|| same.sample(0, black_box(stack), DEPTH, false, SPENT));
    });
    let mut leaves = [stack.to_vec(), stack.to_vec()];
    leaves[1][DEPTH - 1].index += 1;
    let mut changing = recorder(stack);
    let mut turn = 0;
    group.bench_function("other leaf", |bencher| {
        bencher.iter(|| {
            turn ^= 1;
            changing.sample(0, black_box(&leaves[turn]), DEPTH - 1, false, SPENT);
        });
    });
    let mut all_changed = recorder(stack);
    group.bench_function("other root, known", |bencher| {
        bencher.iter(|| all_changed.sample(0, black_box(stack), 0, false, SPENT));
    });
    let stacks = stacks(stack);
    group.throughput(Throughput::Elements(STACKS as u64));
    group.bench_function(format!("{STACKS} new stacks"), |bencher| {
        bencher.iter_batched_ref(
            || recorder(stack),
            |recorder| {
                for (stack, unchanged) in &stacks {
                    recorder.sample(0, stack, *unchanged, false, SPENT);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn finish(criterion: &mut Criterion, snapshotter: &Snapshotter, stack: &[Located]) {
    let mut recorder = recorder(stack);
    for (stack, unchanged) in stacks(stack) {
        recorder.sample(0, &stack, unchanged, false, SPENT);
    }
    let distinct = recorder.profile(&snapshotter.codes, Meta::default()).samples.len();
    assert!(distinct > STACKS * 9 / 10, "only {distinct} stacks are distinct");
    criterion.bench_function(&format!("profile of {STACKS} stacks"), |bencher| {
        bencher.iter_with_large_drop(|| recorder.profile(&snapshotter.codes, Meta::default()));
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    // The newest interpreter's code objects; what is recorded does not depend on the version.
    let interpreter = support::supported().iter().rfind(|one| !one.debug).unwrap();
    let captured = capture(interpreter, DEPTH).unwrap();
    let mut snapshotter = captured.snapshotter();
    let mut target = Target::default();
    let outcome = snapshotter.take(&captured.image, &captured.thread, &mut target);
    assert_eq!(outcome, Outcome::Stack);
    record(&mut criterion, &target.stack);
    spool(&mut criterion, &snapshotter, &target.stack);
    finish(&mut criterion, &snapshotter, &target.stack);
    criterion.final_summary();
}
