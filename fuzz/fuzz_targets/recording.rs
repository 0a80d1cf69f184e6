//! Recordings: any bytes, and records of any contents with the checksums that they should have.
//! What is read is merged and written in every format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pysamp::export::{self, Format, Style};
use pysamp::profile::{Profile, recording};
use pysamp::recorder::format::{self, Kind};

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

fn check(bytes: &[u8]) {
    let Ok((profile, _)) = recording::read(bytes) else { return };
    let twice = Profile::merge([profile.clone(), profile.clone()]);
    for profile in [profile, twice] {
        profile.moments().for_each(drop);
        for format in Format::files() {
            let out = &mut std::io::sink();
            export::write(format, &profile, &Style::default(), out).unwrap();
        }
    }
}

fuzz_target!(|input: (Vec<(u8, Vec<u8>)>, [u8; 48], Option<Vec<u8>>)| {
    let (records, counters, raw) = input;
    let mut bytes = made_of(&records, &counters);
    if let Some(raw) = raw {
        check(&raw);
        let at = bytes.len().saturating_sub(raw.len());
        bytes.splice(at.., raw);
    }
    check(&bytes);
});
