//! C code is found where it runs, by the name that the interpreter tells, and no other is ever shown.

use std::collections::HashMap;
use std::process::Command;

use pysamp::layout::bytecode::Bytecode;
use pysamp::profile::{Profile, Sample, State};
use pysamp::reader::sites;
use serde_json::Value;

use crate::support::{Cores, Interpreter, ensure, on_all, on_each, recorded, supported};

/// A share may be off by two percentage points, and by what chance does to as many samples.
const SHARE: f64 = 0.02;

/// A frame's file and name; those of C code have the file `~`.
type Name<'a> = (&'a str, &'a str);

/// A stack's names, root first.
fn names(profile: &Profile, sample: &Sample) -> Vec<(String, String)> {
    let mut names: Vec<_> = profile
        .leaf_first(sample.stack)
        .map(|frame| {
            let function = profile.function(frame);
            (function.file.to_string(), function.name.to_string())
        })
        .collect();
    names.reverse();
    names
}

/// Of each part: what its call has on the stack, from 3.12 on. The newest is where the time is spent,
/// or anything if the list ends in a Python function.
const CALLED: [(&str, &[&str]); 13] = [
    ("sorted", &["sorted"]),
    ("sorted_key", &["sorted"]),
    ("sorted_lt", &["sorted"]),
    ("nested", &["sorted"]),
    ("reduce", &["_functools.reduce"]),
    ("match", &["re.Pattern.match", "re.Pattern.prefixmatch"]),
    ("loads", &["_json.Scanner"]),
    ("compress", &["zlib.compress"]),
    ("sleep", &["time.sleep"]),
    ("list", &["list"]),
    ("collect", &["gc.collect"]),
    ("spread", &["sorted"]),
    ("argsort", &["numpy.ndarray.argsort"]),
];

/// Those that let go of the GIL.
const APART: [&str; 2] = ["compress", "sleep"];
/// Those whose call 3.11 specialises for C functions.
const SPECIALISED: [&str; 3] = ["sorted", "list", "argsort"];
/// Python functions that C code calls, and that code from 3.12 on.
const CALLED_BACK: [(&str, &str); 4] = [
    ("negative", "sorted"),
    ("in_sorted", "sorted"),
    ("Reversed.__lt__", "sorted"),
    ("larger", "_functools.reduce"),
];

#[test]
fn time_in_c_functions_is_theirs_by_name() {
    on_each(Cores::all, |python| {
        let (measured, profile) = recorded(python, "natives.py", &[], "rate=5khz,native")?;
        let parts = measured["parts"].as_object().ok_or("no parts")?;
        let mut spent: HashMap<(&str, bool), f64> = HashMap::new();
        let mut samples: HashMap<&str, f64> = HashMap::new();
        let (mut faults, mut untold) = (Vec::new(), 0);
        for sample in &profile.samples {
            let stack = names(&profile, sample);
            let stack: Vec<Name<'_>> =
                stack.iter().map(|(file, name)| (&**file, &**name)).collect();
            match misplaced(python, &stack) {
                // A frame of 3.11 does not tell for an instant that C code calls it.
                Some(_) if python.minor() == (3, 11) => untold += sample.count,
                fault => faults.extend(fault),
            }
            let below = stack.iter().rfind(|frame| **frame != ("~", "<GC>"));
            if below.is_some_and(|(file, _)| *file == "~") != sample.state.has(State::IN_NATIVE) {
                faults.push(format!("{:?} in {:?}", stack.last(), sample.state));
            }
            let parts = stack.iter().map(|(_, name)| name.strip_prefix("part_")).enumerate();
            let Some((at, name)) = parts.into_iter().find_map(|(at, name)| Some((at, name?)))
            else {
                continue;
            };
            let Some((name, called)) = CALLED.iter().find(|(its, _)| *its == name) else {
                return Err(format!("there is no part {name}"));
            };
            let is_called = |frame: &Name<'_>| frame.0 == "~" && called.contains(&frame.1);
            // Counts, as a stall of the sampler weighs on one sample alone.
            let weight = sample.count as f64;
            *samples.entry(name).or_default() += weight;
            if stack[at..].iter().any(is_called) {
                *spent.entry((name, true)).or_default() += weight;
            }
            if stack[at..].last() == Some(&("~", "<native>")) {
                *spent.entry((name, false)).or_default() += weight;
            }
        }
        for (name, times) in parts {
            let [whole, truth] = [0, 1].map(|index| times[index].as_f64().unwrap_or(f64::NAN));
            let is_named = python.minor() >= (3, 12);
            let is_marked = APART.contains(&&**name)
                || python.minor() == (3, 11) && SPECIALISED.contains(&&**name);
            if !is_named && !is_marked {
                continue;
            }
            let each = whole / samples.get(name.as_str()).copied().unwrap_or(f64::NAN);
            let found = |named| spent.get(&(name.as_str(), named)).copied().unwrap_or(0.0) * each;
            // Free-threaded 3.13 specialises nothing, and some calls cannot be told from results then.
            let is_vague = python.free_threaded && python.minor() == (3, 13);
            let found = match is_vague {
                true => found(true) + found(false),
                false => found(is_named),
            };
            println!("{} {name}: {:.4} of {:.4} s", python.name, found / 1e9, truth / 1e9);
            let share = truth / whole;
            let noise = 3.0 * (share * (1.0 - share) / samples[name.as_str()]).sqrt();
            if (found - truth).abs() > (SHARE + noise) * whole {
                faults.push(format!(
                    "{name} took {:.4} of {:.4} s, {:.4} s reported",
                    truth / 1e9,
                    whole / 1e9,
                    found / 1e9
                ));
            }
        }
        let taken = profile.meta.samples;
        if untold * 500 > taken {
            faults.push(format!("{untold} of {taken} samples do not tell who called back"));
        }
        let total = faults.len();
        faults.truncate(8);
        ensure(total == 0, || format!("{total} faults:\n    {}", faults.join("\n    ")))
    });
}

/// What is wrong with what lies under the functions that C code calls, and nowhere else.
fn misplaced(python: &Interpreter, stack: &[Name<'_>]) -> Option<String> {
    stack.windows(2).find_map(|pair| {
        let [caller, callee] = [pair[0], pair[1]];
        let by = CALLED_BACK.iter().find(|(name, _)| *name == callee.1);
        let is_right = match (by, python.minor()) {
            (Some((_, by)), (3, 12..)) => caller.0 == "~" && [*by, "<native>"].contains(&caller.1),
            (Some(_), (3, 11)) => caller == ("~", "<native>"),
            // A call may be one of a Python function.
            (Some(_), _) => caller.0 != "~",
            (None, _) => caller.0 != "~" || !callee.1.starts_with("part_") && callee.1 != "works",
        };
        (!is_right).then(|| format!("{callee:?} under {caller:?}"))
    })
}

/// Which of a stack's C code its Python caller may not call.
fn illegal(legal: &Value, stack: &[Name<'_>]) -> Option<String> {
    stack.windows(2).enumerate().find_map(|(index, pair)| {
        let [(file, caller), (native, name)] = [pair[0], pair[1]];
        if native != "~" || !file.ends_with("natives_legal.py") || name.starts_with('<') {
            return None;
        }
        let names = legal[caller].as_array()?;
        let ends_something =
            stack.get(index + 2).is_some_and(|(_, name)| name.ends_with("__del__"));
        let is_legal = names.iter().any(|legal| legal == name) && !ends_something;
        (!is_legal).then(|| format!("{caller}: {name}: {:?}", stack.get(index + 2)))
    })
}

/// How many samples have a name, and which of those are wrong.
fn judged(profile: &Profile, legal: &Value) -> (u64, Vec<String>) {
    let (mut named, mut faults) = (0, Vec::new());
    for sample in &profile.samples {
        let stack = names(profile, sample);
        let stack: Vec<Name<'_>> = stack.iter().map(|(file, name)| (&**file, &**name)).collect();
        let is_named = |frame: &&Name<'_>| frame.0 == "~" && !frame.1.starts_with('<');
        named += stack.iter().find(is_named).map_or(0, |_| sample.count);
        faults.extend(illegal(legal, &stack));
    }
    (named, faults)
}

fn none_wrong(mut faults: Vec<String>) -> Result<(), String> {
    let total = faults.len();
    faults.truncate(8);
    ensure(total == 0, || format!("{total} wrong names:\n    {}", faults.join("\n    ")))
}

#[test]
fn no_wrong_name_is_ever_shown() {
    on_each(Cores::one, |python| {
        let (legal, profile) = recorded(python, "natives_legal.py", &[], "rate=5khz,native")?;
        let (named, faults) = judged(&profile, &legal);
        let (failed, taken) = (profile.meta.failed, profile.meta.samples);
        println!("{}: {named} named of {taken}, {failed} failed", python.name);
        none_wrong(faults)?;
        ensure((named > taken / 10) == (python.minor() >= (3, 12)), || {
            format!("{named} of {taken} samples with a name")
        })
    });
}

/// What a call returns lies where what it called did, from 3.13 on.
#[test]
fn what_a_call_has_just_returned_is_not_what_it_calls() {
    let those: Vec<Interpreter> =
        supported().iter().filter(|python| python.minor() >= (3, 12)).cloned().collect();
    on_all(&those, Cores::one, |python| {
        let arguments = ["--only", "only_looked_up", "--threads", "1"];
        let (legal, profile) =
            recorded(python, "natives_legal.py", &arguments, "rate=20khz,native")?;
        let (named, faults) = judged(&profile, &legal);
        let taken = profile.meta.samples;
        println!("{}: {named} named of {taken}", python.name);
        none_wrong(faults)?;
        ensure(python.free_threaded || named > taken / 10, || {
            format!("{named} of {taken} samples with a name")
        })
    });
}

/// The judgements above must be able to fail.
#[test]
fn wrong_names_and_places_are_recognised() {
    let legal = serde_json::json!({"lengths": ["len"]});
    let caller = ("natives_legal.py", "lengths");
    assert_eq!(illegal(&legal, &[caller, ("~", "len")]), None);
    assert_eq!(illegal(&legal, &[caller, ("~", "<native>")]), None);
    assert!(illegal(&legal, &[caller, ("~", "abs")]).is_some());
    assert!(illegal(&legal, &[caller, ("~", "len"), ("x", "Doomed.__del__")]).is_some());
    let part = ("<string>", "part_sorted_key");
    for python in supported() {
        let by = match python.minor() {
            (3, 12..) => Some("sorted"),
            (3, 11) => Some("<native>"),
            _ => None,
        };
        let right = |by: Option<&'static str>| {
            let stack: Vec<Name<'_>> =
                [Some(part), by.map(|by| ("~", by)), Some(("n.py", "negative"))]
                    .into_iter()
                    .flatten()
                    .collect();
            misplaced(python, &stack).is_none()
        };
        assert!(right(by) && !right(Some("len")), "{}", python.name);
        assert_eq!(right(None), by.is_none(), "{}", python.name);
    }
}

/// What an interpreter says of its bytecode, and some of its library's code.
const FACTS: &str = r#"
import dis, json, opcode, sys, types
if sys.version_info < (3, 13):
    numbers = {name: number for number, name in enumerate(dis._all_opname)}
    base = {numbers[name]: numbers[of] for of, names in opcode._specializations.items()
            for name in names}
    caches = {number: count for number, count in enumerate(opcode._inline_cache_entries) if count}
else:
    base = {opcode._specialized_opmap[name]: opcode.opmap[of]
            for of, names in opcode._specializations.items() for name in names}
    caches = {opcode.opmap[name]: count for name, count in opcode._inline_cache_entries.items()}
arguments = list(range(70)) + [128, 255, 256, 257, 513, 1000]
effects = {}
def effect(number, argument, jump):
    if sys.version_info < (3, 13) and number < dis.HAVE_ARGUMENT:
        argument = None
    return dis.stack_effect(number, argument, jump=jump)
for name, number in opcode.opmap.items():
    unwanted = name.startswith("INSTRUMENTED") or name in ("ENTER_EXECUTOR", "RESERVED", "CACHE")
    if number < 256 and not unwanted:
        effects[number] = [[effect(number, argument, jump) for argument in arguments]
                           for jump in (False, True)]
codes = []
def add(code):
    codes.append([code.co_code.hex(), code.co_exceptiontable.hex(), code.co_stacksize])
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            add(constant)
for name in ("argparse", "asyncio.base_events", "asyncio.tasks", "contextlib", "dataclasses", "dis",
             "inspect", "json.decoder", "logging", "pickle", "subprocess", "tarfile", "typing"):
    file = __import__(name, fromlist=["x"]).__file__
    with open(file, encoding="utf-8") as source:
        add(compile(source.read(), file, "exec"))
names = ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "FOR_ITER", "BINARY_OP", "COMPARE_OP",
         "CONTAINS_OP", "EXTENDED_ARG", "RETURN_GENERATOR")
print(json.dumps({"base": base, "caches": caches, "effects": effects, "arguments": arguments,
                  "codes": codes, "opmap": {name: opcode.opmap.get(name) for name in names}}))
"#;

fn unhex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

#[test]
fn the_bytecode_is_what_interpreters_say() {
    let those: Vec<Interpreter> =
        supported().iter().filter(|python| python.minor() >= (3, 12)).cloned().collect();
    on_all(&those, Cores::one, |python| {
        let output = Command::new(&python.path).args(["-I", "-c", FACTS]).output();
        let output = output.map_err(|error| error.to_string())?;
        let facts: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
        let bytecode = Bytecode::of(python.minor().1).ok_or("no bytecode")?;
        let number = |name: &str| facts["opmap"][name].as_u64().map(|number| number as u8);
        let of = |table: &str, opcode: u8| facts[table][opcode.to_string()].clone();
        let arguments: Vec<u32> = serde_json::from_value(facts["arguments"].clone()).unwrap();
        for opcode in 0..=u8::MAX {
            let effects: Option<[Vec<i32>; 2]> =
                serde_json::from_value(of("effects", opcode)).map_err(|error| error.to_string())?;
            let base = match &effects {
                Some(_) => u64::from(opcode),
                None => of("base", opcode).as_u64().unwrap_or(0),
            };
            ensure(u64::from(bytecode.base[usize::from(opcode)]) == base, || {
                format!("{opcode} is specialised from {base}")
            })?;
            let Some([effects, with_jump]) = effects else { continue };
            ensure(effects == with_jump, || format!("{opcode} has two effects"))?;
            let caches = of("caches", opcode).as_u64().unwrap_or(0);
            ensure(u64::from(bytecode.caches[usize::from(opcode)]) == caches, || {
                format!("{opcode} has {caches} units of cache")
            })?;
            // See the table of 3.12.
            let forgotten =
                i32::from(python.minor() == (3, 12) && Some(opcode) == number("RETURN_GENERATOR"));
            for (&argument, effect) in arguments.iter().zip(effects) {
                let found = bytecode.effect(opcode, argument);
                ensure(found == Some(effect + forgotten), || {
                    format!("{opcode} with {argument}: {found:?}, not {effect}")
                })?;
            }
        }
        let sites = &bytecode.sites;
        let found = [
            Some(sites.call),
            sites.call_kw,
            Some(sites.call_ex),
            Some(sites.for_iter),
            Some(sites.binary),
            Some(sites.compare),
            Some(sites.contains),
            Some(bytecode.extended),
        ];
        let said = ["CALL", "CALL_KW", "CALL_FUNCTION_EX", "FOR_ITER", "BINARY_OP", "COMPARE_OP"]
            .into_iter()
            .chain(["CONTAINS_OP", "EXTENDED_ARG"])
            .map(number);
        ensure(said.eq(found), || format!("other opcodes: {found:?}"))?;

        // All paths to an instruction agree on how deep the stack is, which is as deep as it may be.
        let codes: Vec<(String, String, u32)> =
            serde_json::from_value(facts["codes"].clone()).map_err(|error| error.to_string())?;
        let (mut places, mut deepest) = (0, 0);
        for (code, handlers, size) in &codes {
            let found = sites::sites(bytecode, &unhex(code), &unhex(handlers));
            let found = found.ok_or_else(|| format!("not understood: {code}, {handlers}"))?;
            let most = found.iter().map(|site| site.depth).max().unwrap_or(0);
            ensure(most <= *size, || format!("{most} deep, not {size}: {code}"))?;
            places += found.len();
            deepest += usize::from(most == *size);
        }
        println!("{}: {places} places in {} code objects", python.name, codes.len());
        ensure(places > 5000 && deepest * 2 > codes.len(), || {
            format!("{places} places, {deepest} of {} as deep as can be", codes.len())
        })
    });
}
