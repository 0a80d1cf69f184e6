//! Which instructions run, in which form and at which part of the source: as the interpreter's own `dis`
//! tells it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;

use pysamp::export::{Format, Style, Writer};
use pysamp::profile::{Frame, FrameId, Opcode, Profile};
use serde_json::Value;

use crate::support::{Cores, Interpreter, ensure, on_all, on_each, recorded, supported};

/// An instruction of one of the program's functions.
#[derive(Debug)]
struct Listed {
    index: i32,
    /// As the compiler wrote it.
    plain: String,
    /// As it was in memory at the end.
    adaptive: String,
    /// Line, last line, and columns from 0, where it has any. 3.11 on.
    place: Option<[Option<u32>; 4]>,
}

fn listed(value: &Value) -> Vec<Listed> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let number = |value: &Value| value.as_u64().map(|number| number as u32);
    let rows = value.as_array().unwrap().iter().map(|row| Listed {
        index: row[0].as_i64().unwrap() as i32,
        plain: text(&row[1]),
        adaptive: text(&row[2]),
        place: row[3].as_array().map(|place| [0, 1, 2, 3].map(|at| number(&place[at]))),
    });
    rows.collect()
}

/// The instruction of which a code unit is part, behind its prefixes; and whether the unit is where it or a
/// prefix begins.
fn at(instructions: &[Listed], index: i32) -> (&Listed, bool) {
    let behind = instructions.partition_point(|one| one.index <= index);
    let first = behind.checked_sub(1).expect("the first instruction is at 0");
    let found = instructions[first..].iter().find(|one| one.plain != "EXTENDED_ARG");
    (found.expect("something is behind a prefix"), instructions[first].index == index)
}

/// In how many samples each frame was.
fn counts(profile: &Profile) -> HashMap<FrameId, u64> {
    let mut counts = HashMap::new();
    for sample in &profile.samples {
        let frames: BTreeSet<FrameId> = profile.leaf_first(sample.stack).collect();
        frames.into_iter().for_each(|frame| *counts.entry(frame).or_default() += sample.count);
    }
    counts
}

fn name(opcode: Opcode) -> String {
    opcode.to_string()
}

/// Each name that the interpreter has, and no other; families and caches.
fn check_tables(python: &Interpreter, truth: &Value) -> Result<(), String> {
    let (major, minor, micro) = python.version;
    let version = pysamp::layout::Version { major, minor, micro };
    let known = (0..=255).filter_map(|number| Opcode::new(version, number));
    let known: BTreeMap<String, Opcode> =
        known.filter(|opcode| opcode.name().is_some()).map(|one| (name(one), one)).collect();
    let expected: BTreeMap<String, u64> =
        serde_json::from_value(truth["opcodes"].clone()).map_err(|error| error.to_string())?;
    let numbers: BTreeMap<String, u64> =
        known.iter().map(|(name, opcode)| (name.clone(), opcode.number().into())).collect();
    ensure(numbers == expected, || format!("{numbers:?} are not {expected:?}"))?;

    let families: BTreeMap<String, Vec<String>> =
        serde_json::from_value(truth["families"].clone()).map_err(|error| error.to_string())?;
    let families: BTreeMap<&str, &str> = families
        .iter()
        .flat_map(|(base, members)| members.iter().map(|member| (&**member, &**base)))
        .collect();
    for (name, opcode) in &known {
        let base = opcode.base().map(self::name);
        let instrumented = name.strip_prefix("INSTRUMENTED_");
        let expected = instrumented.filter(|base| known.contains_key(*base));
        let expected = families.get(&**name).copied().or(expected);
        ensure(base.as_deref() == expected, || format!("{name} is {base:?}, not {expected:?}"))?;
        let is_specialised = families.contains_key(&**name) && !name.ends_with("_ADAPTIVE");
        ensure(opcode.is_specialised() == is_specialised, || format!("{name} is misjudged"))?;
        let plain = opcode.base().map_or_else(|| name.clone(), self::name);
        let caches = truth["caches"][&plain].as_u64().unwrap_or(0);
        let known = opcode.cache_units() as u64;
        ensure(known == caches, || format!("{name} has {caches} units of cache, not {known}"))?;
    }
    Ok(())
}

fn check_place(python: &Interpreter, frame: &Frame, listed: &Listed) -> Result<(), String> {
    let found = frame.location;
    let found = [found.line, found.end_line, found.column, found.end_column];
    let Some([line, end_line, column, end_column]) = listed.place else {
        return ensure(python.minor() < (3, 11), || format!("{listed:?} is nowhere"));
    };
    let [column, end_column] = [column, end_column].map(|column| column.map_or(0, |at| at + 1));
    let Some((line, end_line)) = line.zip(end_line) else { return Ok(()) };
    ensure(found == [line, end_line, column, end_column], || format!("{listed:?} is at {found:?}"))
}

fn check_frames(python: &Interpreter, truth: &Value, profile: &Profile) -> Result<(), String> {
    let functions: HashMap<&str, Vec<Listed>> = truth["functions"]
        .as_object()
        .ok_or("no functions")?
        .iter()
        .map(|(name, instructions)| (&**name, listed(instructions)))
        .collect();
    let stands_in_caches = matches!(python.minor(), (3, 11 | 12));
    let (mut all, mut as_at_the_end, mut in_caches) = (0, 0, 0);
    let mut plain: HashMap<&str, BTreeMap<&str, u64>> = HashMap::new();
    for (id, count) in counts(profile) {
        let (frame, function) = (profile.frame(id), &*profile.function(id).name);
        let Some((&function, instructions)) = functions.get_key_value(function) else { continue };
        if frame.instruction < 0 {
            ensure(frame.opcode.is_none(), || format!("{function} begins with {frame:?}"))?;
            continue;
        }
        let opcode = frame.opcode.ok_or_else(|| format!("unknown in {function}: {frame:?}"))?;
        let (listed, is_start) = at(instructions, frame.instruction);
        let wrong = || format!("{opcode} in {function}: {frame:?}, {listed:?}");
        ensure(is_start || stands_in_caches, || format!("in a cache: {}", wrong()))?;
        in_caches += u64::from(!is_start);
        let base = opcode.base().unwrap_or(opcode);
        let is_cover = opcode.is_cover() && function == "covered";
        ensure(name(base) == listed.plain || is_cover, wrong)?;
        check_place(python, frame, listed)?;
        *plain.entry(function).or_default().entry(&listed.plain).or_default() += count;
        if function != "covered" {
            all += count;
            as_at_the_end += if name(opcode) == listed.adaptive { count } else { 0 };
        }
    }
    println!("{}: {as_at_the_end} of {all} samples as at the end", python.name);
    ensure(as_at_the_end as f64 >= 0.95 * all as f64, || {
        format!("{as_at_the_end} of {all} samples are at what dis says")
    })?;
    ensure((in_caches > 0) == stands_in_caches, || format!("{in_caches} frames in caches"))?;
    let seen = |function: &str| plain.get(function).map_or(0, BTreeMap::len);
    // Their callers' instructions are a function call, an attribute, a subscription and an iteration, at least.
    for (function, least) in [("spin", 4), ("inline_calls", 4), ("covered", 2)] {
        ensure(seen(function) >= least, || format!("{function}: only {plain:?}"))?;
    }
    // Most of its time goes by at an attribute whose number needs a prefix.
    let wide = plain.get("wide").ok_or("wide was not seen")?;
    let of_wide: u64 = wide.values().sum();
    ensure(wide.get("LOAD_ATTR").copied().unwrap_or(0) as f64 >= 0.5 * of_wide as f64, || {
        format!("{wide:?}")
    })?;
    let is_prefix = |one: &Listed| one.plain == "EXTENDED_ARG";
    ensure(functions["wide"].iter().rev().take(12).any(is_prefix), || "no prefix".to_owned())
}

/// The two instructions of a line have the time that the program measured.
fn check_shares(truth: &Value, profile: &Profile) -> Result<(), String> {
    const FIRST: [&str; 2] = ["BINARY_MULTIPLY", "BINARY_OP"];
    // Before 3.9 it is a kind of comparison.
    const SECOND: [&str; 2] = ["CONTAINS_OP", "COMPARE_OP"];
    let (mut first, mut all, mut squares) = (0.0, 0.0, 0.0);
    for moment in profile.moments() {
        let stack = profile.samples[moment.sample].stack;
        let Some(top) = profile.leaf_first(stack).next() else { continue };
        let Some(opcode) = profile.frame(top).opcode else { continue };
        let plain = name(opcode.base().unwrap_or(opcode));
        let is_first = FIRST.contains(&&*plain);
        if &*profile.function(top).name == "shares" && (is_first || SECOND.contains(&&*plain)) {
            let (weight, count) = (moment.weight_ns as f64, moment.count.max(1) as f64);
            first += if is_first { weight } else { 0.0 };
            all += weight;
            squares += weight * weight / count;
        }
    }
    let measured = ["multiply", "contains"].map(|part| truth["spent"][part].as_f64().unwrap());
    let (found, expected) = (first / all, measured[0] / (measured[0] + measured[1]));
    // A sampler that is held up takes few samples that weigh much: as many equal ones would be as good.
    let samples = all * all / squares;
    let may_be_off = 0.02 + 4.0 * (expected * (1.0 - expected) / samples).sqrt();
    println!("{found:.3} of {expected:.3}, {samples:.0} samples");
    ensure((found - expected).abs() < may_be_off, || {
        format!(
            "{expected:.3} of the line's time is the first's, not {found:.3} ({samples:.0} samples)"
        )
    })
}

/// What does not show instructions is the same whether they were recorded or not.
fn check_other_formats(python: &Interpreter, profile: &Profile) -> Result<(), String> {
    let mut without = profile.clone();
    without.frames.iter_mut().for_each(|frame| frame.opcode = None);
    // Equal frames become one where profiles are merged.
    let [without, with] =
        [without, profile.clone()].map(|one| Profile::merge([one, Profile::default()]));
    let specialises = python.minor() >= (3, 11) && !python.free_threaded;
    ensure(without.frames.len() < with.frames.len() || !specialises, || {
        "no instruction has two forms".to_owned()
    })?;
    let written = |profile: &Profile, write: fn(&Profile, &Style, &mut dyn Write) -> _| {
        let mut out = Vec::new();
        let result: std::io::Result<()> = write(profile, &Style::default(), &mut out);
        result.map(|()| out).map_err(|error| error.to_string())
    };
    use Format::{Callgrind, Collapsed, Pstats, PstatsTable, Svg, Tree};
    for format in [PstatsTable, Pstats, Tree, Collapsed, Svg, Callgrind] {
        let Writer::File(write) = format.writer() else { return Err("a directory".to_owned()) };
        let is_same = written(&with, write)? == written(&without, write)?;
        ensure(is_same && !format.shows_opcodes(), || format!("{format} differs"))?;
    }
    Ok(())
}

#[test]
fn instructions_are_what_dis_says_they_are() {
    on_each(Cores::all, |python| {
        let (truth, profile) = recorded(python, "opcodes.py", &[], "rate=2khz,opcodes")?;
        check_tables(python, &truth)?;
        check_frames(python, &truth, &profile)?;
        check_shares(&truth, &profile)?;
        check_other_formats(python, &profile)
    });
}

#[test]
fn nothing_is_said_of_instructions_that_were_not_asked_for() {
    on_all(&supported()[..1], Cores::one, |python| {
        let (_, profile) = recorded(python, "opcodes.py", &[], "rate=2khz")?;
        ensure(!profile.has_opcodes(), || "there are opcodes".to_owned())
    });
}
