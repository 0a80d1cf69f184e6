//! What bytecode does to the value stack, 3.12 on: how deep it is at each instruction, and so where
//! on it lies what an instruction works on.

pub mod tables;

/// In [`Bytecode::effects`]: not an instruction, or one whose effect [varies](Bytecode::varying).
pub const UNKNOWN: i8 = i8::MAX;

/// How much deeper an instruction makes the value stack, by its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The first number, and the second one times the argument.
    Linear(i32, i32),
    /// The first number, and the second one if the argument is odd.
    Odd(i32, i32),
    /// `UNPACK_EX`: the argument's low byte and what is above it.
    Unpack,
    /// `BUILD_SLICE` up to 3.13: of two or of three.
    Slice,
    /// `FORMAT_VALUE` in 3.12: takes a specification as well, or not.
    Format,
    /// `MAKE_FUNCTION` in 3.12: takes as many as it has flags.
    Functions,
}

impl Effect {
    fn of(self, argument: u32) -> i32 {
        let value = i32::try_from(argument).unwrap_or(i32::MAX);
        match self {
            Self::Linear(first, factor) => first.saturating_add(value.saturating_mul(factor)),
            Self::Odd(first, more) => first + (value & 1) * more,
            Self::Unpack => (value & 0xFF) + (value >> 8),
            Self::Slice => -1 - i32::from(value == 3),
            Self::Format => -i32::from(value & 4 == 4),
            Self::Functions => -((value & 15).count_ones() as i32),
        }
    }
}

/// The instructions that jump, by as many units as their argument says, from behind their caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jumps {
    /// Always, forward.
    pub forward: u8,
    /// Always, backward.
    pub backward: [u8; 2],
    /// Perhaps, forward.
    pub perhaps: &'static [u8],
}

/// The instructions that may call C code of which something can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sites {
    pub call: u8,
    pub call_kw: Option<u8>,
    pub call_ex: u8,
    pub for_iter: u8,
    pub binary: u8,
    pub compare: u8,
    pub contains: u8,
}

/// What a specialised call calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// A built-in function, or one of an object's, with such [flags](Called::FLAGS).
    Function(u32),
    /// A method of a type.
    Method,
    /// A type.
    Class,
}

impl Called {
    /// `METH_VARARGS`, `METH_KEYWORDS`, `METH_NOARGS`, `METH_O`, `METH_FASTCALL` and `METH_METHOD`
    /// (`methodobject.h`): how a function takes its arguments.
    pub const FLAGS: u32 = 1 | 2 | 4 | Self::ONE | Self::FAST | 0x200;
    /// `METH_O`.
    pub const ONE: u32 = 8;
    /// `METH_FASTCALL`.
    pub const FAST: u32 = 0x80;
    /// `METH_FASTCALL | METH_KEYWORDS`.
    pub const FAST_NAMED: u32 = Self::FAST | 2;
}

/// The bytecode of a minor version.
#[derive(Debug, PartialEq, Eq)]
pub struct Bytecode {
    /// Of each opcode that is one, what it is specialised from; itself if it is not. 0 for the others.
    pub base: [u8; 256],
    /// Units of cache behind each instruction.
    pub caches: [u8; 256],
    /// How much deeper each instruction makes the value stack.
    pub effects: [i8; 256],
    /// The same where it depends on the argument.
    pub varying: &'static [(u8, Effect)],
    /// The instructions that jump.
    pub jumps: Jumps,
    /// Those after which nothing follows.
    pub ends: &'static [u8],
    /// `EXTENDED_ARG`.
    pub extended: u8,
    /// Those that are of interest.
    pub sites: Sites,
    /// Calls that are specialised for Python functions.
    pub python_calls: &'static [u8],
    /// In 3.13, where what a call returns takes the place of what it called: calls that are specialised
    /// for what hardly ever returns something that can be called.
    pub plain_calls: &'static [u8],
    /// From 3.14 on, where what a call returns lies beside its arguments for a moment: calls that are
    /// specialised for C code, and for what (`specialize_c_call` and others of `Python/specialize.c`).
    pub native_calls: &'static [(u8, Called)],
    /// Whether `CALL_FUNCTION_EX` takes keyword arguments, or null, always (3.14 on), or only if its
    /// argument says so.
    pub ex_has_both: bool,
    /// Whether a call takes the callable first, and then the object or null (3.13 on), rather than
    /// the method or null, and then the object or the callable.
    pub is_callable_first: bool,
    /// Whether an iterator lies below an index or null (3.15 on).
    pub iterators_have_index: bool,
    /// Where in its argument `COMPARE_OP` has which comparison it is.
    pub compare_shift: u32,
}

impl Bytecode {
    /// The bytecode of a minor version, 12 to 15.
    pub fn of(minor: u8) -> Option<&'static Self> {
        tables::ALL.iter().find(|(of, _)| *of == minor).map(|(_, bytecode)| *bytecode)
    }

    /// How much deeper an instruction, which is not specialised, makes the value stack.
    pub fn effect(&self, opcode: u8, argument: u32) -> Option<i32> {
        match self.effects[usize::from(opcode)] {
            UNKNOWN => {
                let varying = self.varying.iter().find(|(of, _)| *of == opcode);
                varying.map(|(_, effect)| effect.of(argument))
            }
            effect => Some(effect.into()),
        }
    }
}
