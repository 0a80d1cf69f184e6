//! The file that the standard library's `pstats` loads, on every CPython from 3.8 on.
//!
//! It is a marshalled dict, `{(file, line, function): (cc, nc, tt, ct, callers)}`: cc are direct samples, nc
//! cumulative ones, tt and ct the seconds they stand for. Callers are a dict as well, `{(file, line,
//! function): (nc, cc, tt, ct)}`, in cProfile's own, other order. Names are escaped, as pstats
//! prints them as they are. CPython 3.15's samplers add a key that marks the file as sampled; older versions
//! fail to unpack it, so it is not here.

use super::aggregate::{Amount, Row, Totals, Tree, by_line};
use super::escape::escape;
use crate::profile::Profile;
use std::io::{self, Write};

/// Stands in for rows where there are none, as `pstats` refuses an empty dict.
const NOTHING: Row<'_> = Row { file: "~", line: 0, name: "<no samples>" };

/// Writes the file.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let groups = by_line(profile);
    let tree = Tree::new(profile, &groups.of_frame);
    let totals = tree.totals(profile, groups.keys.len());
    let callers = tree.callers(profile, groups.keys.len());
    let mut marshal = Marshal { out };
    marshal.begin_dict()?;
    let mut rows = 0;
    for ((&row, totals), callers) in groups.keys.iter().zip(&totals).zip(&callers) {
        if totals.cumulative.samples == 0 {
            continue;
        }
        rows += 1;
        marshal.row(row)?;
        marshal.begin_tuple(5)?;
        marshal.numbers(totals.direct.samples, totals.cumulative.samples, totals)?;
        marshal.begin_dict()?;
        for (caller, totals) in callers {
            marshal.row(groups.keys[*caller as usize])?;
            marshal.begin_tuple(4)?;
            marshal.numbers(totals.cumulative.samples, totals.direct.samples, totals)?;
        }
        marshal.end_dict()?;
    }
    if rows == 0 {
        marshal.row(NOTHING)?;
        marshal.begin_tuple(5)?;
        marshal.numbers(0, 0, &Totals::default())?;
        marshal.begin_dict()?;
        marshal.end_dict()?;
    }
    marshal.end_dict()
}

/// The part of marshal's format, version 2, that the file needs (CPython: Python/marshal.c). A container
/// is followed by what it holds; a dict ends with a mark, a tuple begins with its length.
struct Marshal<'a> {
    out: &'a mut dyn Write,
}

impl Marshal<'_> {
    fn row(&mut self, row: Row<'_>) -> io::Result<()> {
        self.begin_tuple(3)?;
        self.string(&escape(row.file, None))?;
        self.integer(row.line.into())?;
        self.string(&escape(row.name, None))
    }

    fn numbers(&mut self, first: u64, second: u64, totals: &Totals) -> io::Result<()> {
        self.integer(first)?;
        self.integer(second)?;
        self.seconds(totals.direct)?;
        self.seconds(totals.cumulative)
    }

    fn seconds(&mut self, amount: Amount) -> io::Result<()> {
        self.out.write_all(b"g")?;
        self.out.write_all(&(amount.ns as f64 / 1e9).to_le_bytes())
    }

    fn integer(&mut self, value: u64) -> io::Result<()> {
        if let Ok(small) = i32::try_from(value) {
            self.out.write_all(b"i")?;
            return self.out.write_all(&small.to_le_bytes());
        }
        // Beyond that, digits to base 2^15, the lowest first.
        let digits: Vec<u16> = std::iter::successors(Some(value), |rest| Some(rest >> 15))
            .take_while(|rest| *rest > 0)
            .map(|rest| (rest & 0x7fff) as u16)
            .collect();
        self.out.write_all(b"l")?;
        self.length(digits.len())?;
        digits.iter().try_for_each(|digit| self.out.write_all(&digit.to_le_bytes()))
    }

    fn string(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(b"u")?;
        self.length(text.len())?;
        self.out.write_all(text.as_bytes())
    }

    fn begin_tuple(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all(b"(")?;
        self.length(length)
    }

    fn begin_dict(&mut self) -> io::Result<()> {
        self.out.write_all(b"{")
    }

    fn end_dict(&mut self) -> io::Result<()> {
        self.out.write_all(b"0")
    }

    fn length(&mut self, length: usize) -> io::Result<()> {
        let length = i32::try_from(length).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{empty, profile};

    fn integer(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Marshal { out: &mut out }.integer(value).unwrap();
        out
    }

    // What `marshal.dumps(value, 2)` gives.
    #[test]
    fn integers() {
        assert_eq!(integer(0), b"i\0\0\0\0");
        assert_eq!(integer((1 << 31) - 1), b"i\xff\xff\xff\x7f");
        assert_eq!(integer(1 << 31), b"l\x03\0\0\0\0\0\0\0\x02\0");
        assert_eq!(integer(u64::MAX), b"l\x05\0\0\0\xff\x7f\xff\x7f\xff\x7f\xff\x7f\x0f\0");
    }

    #[test]
    fn golden() {
        let mut out = Vec::new();
        write(&profile(&[("f:2", 3)]), &mut out).unwrap();
        let expected = [
            b"{(\x03\0\0\0u\x09\0\0\0/app/t.pyi\x02\0\0\0u\x01\0\0\0f".as_slice(),
            b"(\x05\0\0\0i\x03\0\0\0i\x03\0\0\0g\xfa\x7e\x6a\xbc\x74\x93\x68\x3fg\xfa\x7e\x6a\xbc\x74\x93\x68\x3f",
            b"{00",
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn an_empty_profile_has_a_row_that_says_so() {
        let mut out = Vec::new();
        write(&empty(), &mut out).unwrap();
        assert!(out.windows(12).any(|bytes| bytes == b"<no samples>"));
    }
}
