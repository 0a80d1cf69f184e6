//! What instructions are called in each CPython, which of them are specialisations of which, and how
//! much of the code behind them is their cache.
//!
//! The tables are texts beside this file. A line is a name, the opcode and, in 3.11 and 3.12, units of
//! cache; what is indented is a specialisation of what stands before. The numbers are the same in all
//! releases of a series, as the compiled files of all of them are.

use std::fmt;
use std::num::NonZeroU8;

use once_cell::race::OnceBox;

use super::Version;

/// An instruction of one series of CPython, without its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opcode {
    minor: NonZeroU8,
    number: u8,
}

/// `Include/opcode.h` up to 3.12, `Include/opcode_ids.h` from 3.13 on; each text names its tag.
const TEXTS: [&str; 8] = [
    include_str!("opcodes/3.8.txt"),
    include_str!("opcodes/3.9.txt"),
    include_str!("opcodes/3.10.txt"),
    include_str!("opcodes/3.11.txt"),
    include_str!("opcodes/3.12.txt"),
    include_str!("opcodes/3.13.txt"),
    include_str!("opcodes/3.14.txt"),
    include_str!("opcodes/3.15.txt"),
];
const FIRST_MINOR: u8 = 8;

/// What monitoring tools have put in the place of an instruction begins with this (3.12 on).
const INSTRUMENTED: &str = "INSTRUMENTED_";

/// Where `Python/ceval.c`, or from 3.12 on `Python/bytecodes.c`, looks at the eval breaker: before the next
/// instruction up to 3.9, in the instruction itself from then on. Calls do as well, but they call.
const SWITCH_POINTS: [&str; 9] = [
    "RESUME",
    "JUMP_BACKWARD",
    "JUMP_ABSOLUTE",
    "POP_JUMP_IF_FALSE",
    "POP_JUMP_IF_TRUE",
    "POP_JUMP_BACKWARD_IF_FALSE",
    "POP_JUMP_BACKWARD_IF_TRUE",
    "POP_JUMP_BACKWARD_IF_NONE",
    "POP_JUMP_BACKWARD_IF_NOT_NONE",
];

impl Opcode {
    /// An opcode as the series of that version numbers it; `None` if there is no such series.
    pub fn new(version: Version, number: u8) -> Option<Self> {
        Self::of_series(version.minor, number).filter(|_| version.major == 3)
    }

    fn of_series(minor: u8, number: u8) -> Option<Self> {
        table(minor)?;
        Some(Self { minor: NonZeroU8::new(minor)?, number })
    }

    /// The opcode and its series as one number, which is never 0.
    pub fn bits(self) -> u16 {
        u16::from_be_bytes([self.minor.get(), self.number])
    }

    /// What has these [`bits`](Self::bits).
    pub fn from_bits(bits: u16) -> Option<Self> {
        let [minor, number] = bits.to_be_bytes();
        Self::of_series(minor, number)
    }

    /// The number that the interpreter uses.
    pub fn number(self) -> u8 {
        self.number
    }

    /// What `dis` calls it; `None` if the series has no such opcode.
    pub fn name(self) -> Option<&'static str> {
        Some(self.table()?.names[usize::from(self.number)]).filter(|name| !name.is_empty())
    }

    /// The instruction that the compiler wrote, where the interpreter has put this one in its place:
    /// as one of its specialisations, or for monitoring tools.
    pub fn base(self) -> Option<Self> {
        let base = self.table()?.bases[usize::from(self.number)];
        (base != self.number).then_some(Self { number: base, ..self })
    }

    /// Whether it is a faster form for what was met here before. 3.11 has `_ADAPTIVE` ones as well, which
    /// are still to find one.
    pub fn is_specialised(self) -> bool {
        let is_other = |name: &str| name.starts_with(INSTRUMENTED) || name.ends_with("_ADAPTIVE");
        self.base().is_some() && self.name().is_some_and(|name| !is_other(name))
    }

    /// The opcode of the same name in another series, or else of its base.
    pub fn in_series(self, minor: u8) -> Option<Self> {
        let of_name = |name: &str| {
            let names = &table(minor)?.names;
            let number = names.iter().position(|known| *known == name)?;
            Self::of_series(minor, number as u8)
        };
        self.name().and_then(of_name).or_else(|| of_name(self.base()?.name()?))
    }

    /// Whether it only widens the argument of the instruction behind it. 3.11 has a quicker form of it.
    pub fn is_prefix(self) -> bool {
        self.base().unwrap_or(self).name() == Some("EXTENDED_ARG")
    }

    /// Whether it hides another instruction, which monitoring tools have kept elsewhere.
    pub fn is_cover(self) -> bool {
        matches!(self.name(), Some("INSTRUMENTED_LINE" | "INSTRUMENTED_INSTRUCTION"))
    }

    /// Whether the interpreter looks here whether others want the GIL, and nothing else could let go of it: no
    /// code of anybody else's is called.
    pub fn is_switch_point(self) -> bool {
        self.base().unwrap_or(self).name().is_some_and(|name| SWITCH_POINTS.contains(&name))
    }

    /// Whether the same is so if the thread is on a processor: up to 3.9 the interpreter looks between any two
    /// instructions, and iterators that let go of the GIL wait.
    pub fn is_switch_point_on_cpu(self) -> bool {
        self.minor.get() <= 9 && self.name() == Some("FOR_ITER")
    }

    /// How many units of cache follow it, in 3.11 and 3.12.
    pub fn cache_units(self) -> usize {
        self.table().map_or(0, |table| table.caches[usize::from(self.number)].into())
    }

    fn table(self) -> Option<&'static Table> {
        table(self.minor.get())
    }
}

/// As `dis` shows it.
impl fmt::Display for Opcode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => out.write_str(name),
            None => write!(out, "<{}>", self.number),
        }
    }
}

/// Of a series, by opcode. Names that do not exist are empty; what is its own base has none.
struct Table {
    names: [&'static str; 256],
    bases: [u8; 256],
    caches: [u8; 256],
}

/// The table of a series, which is read when it is first asked for.
fn table(minor: u8) -> Option<&'static Table> {
    // Not a lock: a fork while another thread reads would leave the child's taken for ever.
    static TABLES: [OnceBox<Table>; TEXTS.len()] = [const { OnceBox::new() }; TEXTS.len()];
    let index = usize::from(minor.checked_sub(FIRST_MINOR)?);
    let (table, text) = (TABLES.get(index)?, TEXTS.get(index)?);
    Some(table.get_or_init(|| Box::new(Table::new(text))))
}

impl Table {
    fn new(text: &'static str) -> Self {
        let bases = std::array::from_fn(|number| number as u8);
        let mut table = Self { names: [""; 256], bases, caches: [0; 256] };
        let mut family = (0, 0);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default();
            let mut number = || words.next().and_then(|word| word.parse::<u8>().ok());
            let Some(opcode) = number() else { continue };
            let is_member = line.starts_with(' ');
            if !is_member {
                family = (opcode, number().unwrap_or(0));
            }
            let at = usize::from(opcode);
            table.names[at] = name;
            (table.bases[at], table.caches[at]) = family;
        }
        for at in 0..table.names.len() {
            let of_name = |name| table.names.iter().position(|known| *known == name);
            if let Some(base) = table.names[at].strip_prefix(INSTRUMENTED).and_then(of_name) {
                table.bases[at] = base as u8;
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opcode(minor: u8, name: &str) -> Opcode {
        let names = &table(minor).unwrap().names;
        let number = names.iter().position(|known| *known == name).unwrap();
        Opcode::of_series(minor, number as u8).unwrap()
    }

    #[test]
    fn who_lets_go_of_the_gil_where() {
        for minor in 8..=15 {
            let jump = if minor < 11 { "JUMP_ABSOLUTE" } else { "JUMP_BACKWARD" };
            let call = if minor < 11 { "CALL_FUNCTION" } else { "CALL" };
            assert!(opcode(minor, jump).is_switch_point(), "{minor}");
            assert!(!opcode(minor, call).is_switch_point(), "{minor}");
        }
        assert!(opcode(13, "RESUME_CHECK").is_switch_point());
        let on_cpu = |minor| opcode(minor, "FOR_ITER").is_switch_point_on_cpu();
        assert_eq!([8, 9, 10, 15].map(on_cpu), [true, true, false, false]);
        assert!(opcode(14, "INSTRUMENTED_JUMP_BACKWARD").is_switch_point());
    }

    #[test]
    fn what_stands_for_what() {
        let base = |minor, name| opcode(minor, name).base().map(|base| base.to_string());
        let of = |name: &str| Some(name.to_owned());
        for minor in 11..=15 {
            assert_eq!(base(minor, "BINARY_OP_ADD_INT"), of("BINARY_OP"), "{minor}");
            assert!(opcode(minor, "BINARY_OP_ADD_INT").is_specialised());
            assert_eq!(base(minor, "BINARY_OP"), None);
            assert!(!opcode(minor, "BINARY_OP").is_specialised());
        }
        assert_eq!(base(11, "BINARY_OP_ADAPTIVE"), of("BINARY_OP"));
        assert_eq!(base(14, "INSTRUMENTED_CALL"), of("CALL"));
        assert_eq!(base(14, "INSTRUMENTED_LINE"), None);
        for (minor, name) in [(11, "BINARY_OP_ADAPTIVE"), (12, "INSTRUMENTED_CALL"), (8, "NOP")] {
            assert!(!opcode(minor, name).is_specialised());
        }
        let caches = |minor, name| opcode(minor, name).cache_units();
        assert_eq!((caches(11, "CALL"), caches(12, "CALL"), caches(12, "POP_TOP")), (4, 3, 0));
        assert_eq!((caches(12, "CALL_NO_KW_LEN"), caches(12, "INSTRUMENTED_CALL")), (3, 3));
    }

    #[test]
    fn series_are_told_apart() {
        for minor in FIRST_MINOR..FIRST_MINOR + TEXTS.len() as u8 {
            for number in 0..=255 {
                let opcode = Opcode::of_series(minor, number).unwrap();
                assert_eq!(Opcode::from_bits(opcode.bits()), Some(opcode));
                assert_ne!(opcode.bits(), 0);
            }
            assert!(opcode(minor, "EXTENDED_ARG").is_prefix());
        }
        assert!(opcode(11, "EXTENDED_ARG_QUICK").is_prefix());
        let of_version = |major, minor| Opcode::new(Version { major, minor, micro: 0 }, 1);
        assert_eq!([of_version(3, 7), of_version(3, 16), of_version(4, 8)], [None; 3]);
        assert_eq!([Opcode::from_bits(0), Opcode::from_bits(0x10_01)], [None; 2]);
        let in_15 = |minor, name| opcode(minor, name).in_series(15).map(|known| known.to_string());
        assert_eq!(in_15(8, "FOR_ITER").as_deref(), Some("FOR_ITER"));
        assert_eq!(in_15(11, "BINARY_OP_ADAPTIVE").as_deref(), Some("BINARY_OP"));
        assert_eq!(in_15(8, "BINARY_ADD"), None);
        assert_eq!(Opcode::of_series(8, 0).unwrap().to_string(), "<0>");
    }
}
