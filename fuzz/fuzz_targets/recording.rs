//! Recordings: any bytes, real ones with bytes changed and their checksums made right again, and records of
//! any contents. What is read is merged, cut to parts, viewed, compared, and written in every format.
//!
//! An input begins with four bytes that say what is done; `seeds.sh` puts them before real recordings.
#![no_main]

use std::io::sink;

use libfuzzer_sys::arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use pysamp::export::diff::{self, Comparison, DiffKey};
use pysamp::export::{self, By, Format, Style, Writer, html, svg};
use pysamp::profile::{Mode, Profile, View, recording};
use pysamp::recorder::format::{self, Contents, Kind};

/// More samples would take too long.
const MOST_WRITTEN: u64 = 1 << 20;

/// A recording of these records. Most numbers are small, so that many refer to what is there.
fn made_of(records: &[(u8, Vec<u8>)], counters: &[u8]) -> Vec<u8> {
    let mut bytes = format::MAGIC.to_vec();
    bytes.extend(format::VERSION.to_le_bytes());
    bytes.resize(format::counter::USED, 0);
    bytes.extend(counters.iter().take(format::HEADER_BYTES - bytes.len()));
    bytes.resize(format::HEADER_BYTES, 0);
    for (kind, small) in records {
        let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
        let mut contents = Vec::new();
        for &number in small {
            match number {
                0xFF => format::put(&mut contents, u32::MAX),
                0xFE => format::put_text(&mut contents, "a\u{1b};<b>\n"),
                // Entries of the time line are bytes.
                _ if kind == Kind::Moments => contents.push(number),
                0xFD => contents.push(number),
                _ => format::put(&mut contents, number.into()),
            }
        }
        bytes.extend(kind.word(contents.len()).to_le_bytes());
        bytes.extend(kind.checksum(&contents).to_le_bytes());
        bytes.extend(&contents);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// Gives every record the checksum that it should have, as far as lengths lead from one to the next.
fn mend(bytes: &mut [u8]) {
    let header = format::MAGIC.iter().copied().chain(format::VERSION.to_le_bytes());
    bytes.iter_mut().zip(header).for_each(|(byte, right)| *byte = right);
    let mut at = format::HEADER_BYTES;
    while let Some((kind, length)) =
        bytes.get(at..).and_then(|rest| Kind::of_word(Contents(rest).number()?))
    {
        let begin = at + format::HEAD_BYTES;
        let Some(contents) = bytes.get(begin..begin + length) else { break };
        let checksum = kind.checksum(contents).to_le_bytes();
        bytes[at + 4..begin].copy_from_slice(&checksum);
        at = begin + format::padded(length);
    }
}

/// Parts of a profile, as the options of `report` choose them.
fn parts(profile: &Profile, how: u8) -> Profile {
    let all = ["*".parse().unwrap()];
    let some = ["[a-m<]*".parse().unwrap(), "1*".parse().unwrap()];
    let patterns = if how & 1 == 0 { &all[..] } else { &some[..] };
    let mut part = profile.clone();
    if how & 2 != 0 {
        part = part.of_processes(patterns).into_owned();
    }
    if how & 4 != 0 {
        part = part.of_threads(patterns).into_owned();
    }
    if how & 8 != 0 {
        let end = profile.meta.duration_ns;
        let range = match how >> 6 {
            0 => 0..u64::MAX,
            1 => end / 4..end / 2,
            2 => 1_000_000..u64::MAX,
            _ => end / 3..end,
        };
        part = part.between(range).into_owned();
    }
    if how & 16 != 0 {
        part = part.with_functions(patterns).into_owned();
    }
    part
}

fn write_all(profile: &Profile, style: &Style, heatmap: bool) {
    let counted = profile.samples.iter().map(|sample| sample.count).fold(0, u64::saturating_add);
    assert_eq!(counted, profile.meta.samples);
    let moments = profile.moments().map(|moment| moment.count).fold(0, u64::saturating_add);
    for format in Format::ALL {
        match format.writer() {
            // It has every sample for itself, and refuses too many.
            Writer::File(_) if format == Format::Binary && moments > MOST_WRITTEN => {}
            Writer::File(write) => write(profile, style, &mut sink()).unwrap(),
            Writer::Either { fill, write } if heatmap => {
                let directory = tempfile::tempdir().unwrap();
                fill(profile, style, directory.path()).unwrap();
                write(profile, style, &mut sink()).unwrap();
            }
            Writer::Either { .. } => {}
        }
    }
}

fn check(bytes: &[u8], [_, part, view, more]: [u8; 4]) {
    let Ok((profile, _)) = recording::read(bytes) else { return };
    // What is written of it is read as the same.
    let mut again = Vec::new();
    export::write(Format::Recording, &profile, &Style::default(), &mut again).unwrap();
    let again = recording::read(&again).expect("what was written").0;
    assert_eq!(again.samples.len(), profile.samples.len());
    assert_eq!(again.moments().count(), profile.moments().count());
    // Another process's, that began at another time.
    let mut other = profile.clone();
    let by_ns = u64::from(more) << 40;
    other.meta.start_unix_ns = match part & 32 {
        0 => other.meta.start_unix_ns.wrapping_add(by_ns),
        _ => other.meta.start_unix_ns.wrapping_sub(by_ns),
    };
    let merged = Profile::merge([profile.clone(), other, again]);
    let mode = Mode::ALL[usize::from(view % 4)];
    let view = View { mode, hides_gc: view & 4 != 0, ..View::default() };
    let style = Style {
        is_colored: more & 1 != 0,
        width: (more & 2 != 0).then_some(usize::from(more)),
        by: if more & 4 != 0 { By::Function } else { By::Line },
        hide: vec!["a*".parse().unwrap()],
        ..Style::default()
    };
    for whole in [&profile, &merged] {
        let part = parts(whole, part);
        let shown = part.viewed(&view);
        write_all(&shown, &style, more & 8 != 0);
        let comparison = Comparison { sort: DiffKey::Own, is_absolute: more & 16 != 0 };
        diff::write(whole, &shown, comparison, &style, &mut sink()).unwrap();
        svg::write_difference(whole, &shown, more & 16 != 0, &mut sink()).unwrap();
        html::write_diff(&shown, whole, &mut sink()).unwrap();
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((how, rest)) = input.split_first_chunk::<4>() else { return };
    let bytes = match how[0] % 4 {
        0 => rest.to_vec(),
        1 | 2 => {
            let mut bytes = rest.to_vec();
            mend(&mut bytes);
            bytes
        }
        _ => {
            let mut rest = Unstructured::new(rest);
            let Ok((counters, records)) = rest.arbitrary::<([u8; 48], Vec<(u8, Vec<u8>)>)>() else {
                return;
            };
            made_of(&records, &counters)
        }
    };
    check(&bytes, *how);
});
