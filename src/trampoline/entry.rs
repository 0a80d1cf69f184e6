//! What CPython calls for each frame: machine code that looks up the stub of the frame's code object
//! and jumps there with the caller's arguments. It leaves no frame of its own on the stack.
//!
//! Only what is not in the table yet takes the slow way, through [`Slow`]. Of the interpreter's memory
//! it loads two words: the code object of the frame that the interpreter hands over, and, from 3.12 on, that
//! object's version. Both are there as long as the call lasts, and [`HOT`] has their places only once they were
//! proved by reads that survive a mistake.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use super::stub::UNIT_SHIFT;
use super::table::{
    ADDRESS_SHIFT, HEAD_BYTES, KEY_SHIFT, MULTIPLIER, SHIFT, STEP_MULTIPLIER, STEP_SHIFT,
    TOGETHER_SHIFT,
};

/// What the machine code reads. The order is known to it.
#[repr(C)]
pub(super) struct Hot {
    /// The table, or 0: all take the slow way.
    pub(super) table: AtomicU64,
    /// Place of the code object in a frame.
    pub(super) frame_code: AtomicU64,
    /// Place of the version in a code object, from 3.12 on.
    pub(super) code_version: AtomicU64,
    /// `_PyEval_EvalFrameDefault`.
    pub(super) evaluate: AtomicU64,
}

pub(super) static HOT: Hot = Hot {
    table: AtomicU64::new(0),
    frame_code: AtomicU64::new(0),
    code_version: AtomicU64::new(0),
    evaluate: AtomicU64::new(0),
};

/// Finds or makes the stub of a frame's code object: its address, or 0 for none.
pub(super) type Slow = extern "C" fn(frame: u64) -> u64;

/// Whether there is machine code for this processor.
pub(super) const IS_AVAILABLE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Where the slow way leads; set before any frame is hooked.
static SLOW: AtomicU64 = AtomicU64::new(0);

pub(super) fn set_slow(slow: Slow) {
    SLOW.store(slow as usize as u64, Ordering::Release);
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.pysamp_frame,\"ax\",@progbits",
    // A frame of 3.12 on: thread in rdi, frame in rsi, throwflag in edx. All stay as they are.
    ".balign 64",
    ".globl pysamp_frame",
    ".hidden pysamp_frame",
    ".type pysamp_frame,@function",
    "pysamp_frame:",
    ".cfi_startproc",
    "endbr64",
    "mov r9, qword ptr [rip + {hot}]",
    "mov rax, qword ptr [rip + {hot} + 8]",
    "mov r11, qword ptr [rip + {hot} + 16]",
    "mov r10, rsi",
    "test r9, r9",
    "jz 6f",
    "mov rax, qword ptr [r10 + rax]",
    // A reference keeps flags in its low bits (3.14 on).
    "and rax, -8",
    "mov r8d, dword ptr [rax + r11]",
    // There are no more versions.
    "test r8d, r8d",
    "jz 6f",
    "lea rcx, [r8 * 8]",
    // r10: the frame; r9: the table; r8: the key; rcx: its home, and what follows.
    "3:",
    "and rcx, qword ptr [r9]",
    "mov rax, qword ptr [r9 + rcx + {head}]",
    "mov r11, rax",
    "shr r11, {key_shift}",
    "cmp r11, r8",
    "jne 4f",
    "5:",
    "and eax, {units}",
    "shl rax, {unit_shift}",
    "add rax, qword ptr [r9 + 8]",
    "mov rcx, qword ptr [rip + {hot} + 24]",
    "jmp rax",
    "4:",
    "test rax, rax",
    "jz 6f",
    "mov eax, r8d",
    "shr eax, {together_shift}",
    "imul rax, rax, {step_multiplier}",
    "shr rax, {step_shift}",
    "or rax, 1",
    "lea rcx, [rcx + rax * 8]",
    "jmp 3b",
    "6:",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "push rdi",
    "push rsi",
    "push rdx",
    "sub rsp, 8",
    "mov rdi, r10",
    "call qword ptr [rip + {slow}]",
    "add rsp, 8",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    ".cfi_restore rbp",
    "mov rcx, qword ptr [rip + {hot} + 24]",
    "test rax, rax",
    "cmovz rax, rcx",
    "jmp rax",
    ".cfi_endproc",
    ".size pysamp_frame, .-pysamp_frame",
    // A frame of 3.9 to 3.11: as above.
    ".balign 16",
    ".globl pysamp_frame_3_9",
    ".hidden pysamp_frame_3_9",
    ".type pysamp_frame_3_9,@function",
    "pysamp_frame_3_9:",
    ".cfi_startproc",
    "endbr64",
    "mov r10, rsi",
    "2:",
    "mov r9, qword ptr [rip + {hot}]",
    "mov rax, qword ptr [rip + {hot} + 8]",
    "test r9, r9",
    "jz 6b",
    "mov r8, qword ptr [r10 + rax]",
    "shr r8, {address_shift}",
    "movabs rcx, {multiplier}",
    "imul rcx, r8",
    "shr rcx, {shift}",
    // As above but for the step: what is found by addresses is taken out, too.
    "7:",
    "and rcx, qword ptr [r9]",
    "mov rax, qword ptr [r9 + rcx + {head}]",
    "mov r11, rax",
    "shr r11, {key_shift}",
    "cmp r11, r8",
    "je 5b",
    "add rcx, 8",
    "test rax, rax",
    "jnz 7b",
    "jmp 6b",
    ".cfi_endproc",
    ".size pysamp_frame_3_9, .-pysamp_frame_3_9",
    // A frame of 3.8: frame in rdi, throwflag in esi.
    ".balign 16",
    ".globl pysamp_frame_3_8",
    ".hidden pysamp_frame_3_8",
    ".type pysamp_frame_3_8,@function",
    "pysamp_frame_3_8:",
    ".cfi_startproc",
    "endbr64",
    "mov r10, rdi",
    "jmp 2b",
    ".cfi_endproc",
    ".size pysamp_frame_3_8, .-pysamp_frame_3_8",
    ".popsection",
    hot = sym HOT,
    slow = sym SLOW,
    head = const HEAD_BYTES,
    key_shift = const KEY_SHIFT,
    units = const (1 << KEY_SHIFT) - 1,
    unit_shift = const UNIT_SHIFT,
    address_shift = const ADDRESS_SHIFT,
    together_shift = const TOGETHER_SHIFT,
    step_multiplier = const STEP_MULTIPLIER,
    step_shift = const STEP_SHIFT,
    multiplier = const MULTIPLIER,
    shift = const SHIFT,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.pysamp_frame,\"ax\",@progbits",
    // A frame of 3.12 on: thread in x0, frame in x1, throwflag in w2. All stay as they are.
    ".balign 64",
    ".globl pysamp_frame",
    ".hidden pysamp_frame",
    ".type pysamp_frame,@function",
    "pysamp_frame:",
    ".cfi_startproc",
    "hint #34", // bti c
    "mov x8, x1",
    "adrp x9, {hot}",
    "add x9, x9, :lo12:{hot}",
    "ldar x11, [x9]",
    "cbz x11, 6f",
    "ldp x10, x13, [x9, #8]",
    "ldr x10, [x8, x10]",
    // A reference keeps flags in its low bits (3.14 on).
    "and x10, x10, #-8",
    "ldr w12, [x10, x13]",
    // There are no more versions.
    "cbz w12, 6f",
    "lsl x13, x12, #3",
    // x8: the frame; x9: what is hot; x11: the table; x12: the key; x13: its home, and what follows.
    "3:",
    "ldr x14, [x11]",
    "and x13, x13, x14",
    "add x15, x11, x13",
    "add x15, x15, #{head}",
    // Only then the stub.
    "ldar x16, [x15]",
    "lsr x17, x16, #{key_shift}",
    "cmp x17, x12",
    "b.ne 4f",
    "5:",
    "and x16, x16, #{units}",
    "ldr x17, [x11, #8]",
    "ldr x3, [x9, #24]",
    "add x17, x17, x16, lsl #{unit_shift}",
    "br x17",
    "4:",
    "cbz x16, 6f",
    "lsr x14, x12, #{together_shift}",
    "movz x15, #{step_low}",
    "movk x15, #{step_high}, lsl #16",
    "mul x14, x14, x15",
    "lsr x14, x14, #{step_shift}",
    "orr x14, x14, #1",
    "add x13, x13, x14, lsl #3",
    "b 3b",
    "6:",
    "stp x29, x30, [sp, #-48]!",
    ".cfi_def_cfa_offset 48",
    ".cfi_offset x29, -48",
    ".cfi_offset x30, -40",
    "mov x29, sp",
    "stp x0, x1, [sp, #16]",
    "str x2, [sp, #32]",
    "mov x0, x8",
    "adrp x9, {slow}",
    "ldr x9, [x9, :lo12:{slow}]",
    "blr x9",
    "mov x16, x0",
    "ldr x2, [sp, #32]",
    "ldp x0, x1, [sp, #16]",
    "ldp x29, x30, [sp], #48",
    ".cfi_def_cfa_offset 0",
    ".cfi_restore x29",
    ".cfi_restore x30",
    "adrp x9, {hot}",
    "add x9, x9, :lo12:{hot}",
    "ldr x3, [x9, #24]",
    "cmp x16, #0",
    "csel x16, x3, x16, eq",
    "br x16",
    ".cfi_endproc",
    ".size pysamp_frame, .-pysamp_frame",
    // A frame of 3.9 to 3.11: as above.
    ".balign 16",
    ".globl pysamp_frame_3_9",
    ".hidden pysamp_frame_3_9",
    ".type pysamp_frame_3_9,@function",
    "pysamp_frame_3_9:",
    ".cfi_startproc",
    "hint #34", // bti c
    "mov x8, x1",
    "2:",
    "adrp x9, {hot}",
    "add x9, x9, :lo12:{hot}",
    "ldar x11, [x9]",
    "cbz x11, 6b",
    "ldr x10, [x9, #8]",
    "ldr x10, [x8, x10]",
    "lsr x12, x10, #{address_shift}",
    "movz x13, #{m0}",
    "movk x13, #{m1}, lsl #16",
    "movk x13, #{m2}, lsl #32",
    "movk x13, #{m3}, lsl #48",
    "mul x13, x12, x13",
    "lsr x13, x13, #{shift}",
    // As above but for the step: what is found by addresses is taken out, too.
    "7:",
    "ldr x14, [x11]",
    "and x13, x13, x14",
    "add x15, x11, x13",
    "add x15, x15, #{head}",
    "ldar x16, [x15]",
    "lsr x17, x16, #{key_shift}",
    "cmp x17, x12",
    "b.eq 5b",
    "add x13, x13, #8",
    "cbnz x16, 7b",
    "b 6b",
    ".cfi_endproc",
    ".size pysamp_frame_3_9, .-pysamp_frame_3_9",
    // A frame of 3.8: frame in x0, throwflag in w1.
    ".balign 16",
    ".globl pysamp_frame_3_8",
    ".hidden pysamp_frame_3_8",
    ".type pysamp_frame_3_8,@function",
    "pysamp_frame_3_8:",
    ".cfi_startproc",
    "hint #34", // bti c
    "mov x8, x0",
    "b 2b",
    ".cfi_endproc",
    ".size pysamp_frame_3_8, .-pysamp_frame_3_8",
    ".popsection",
    hot = sym HOT,
    slow = sym SLOW,
    m0 = const MULTIPLIER & 0xFFFF,
    m1 = const MULTIPLIER >> 16 & 0xFFFF,
    m2 = const MULTIPLIER >> 32 & 0xFFFF,
    m3 = const MULTIPLIER >> 48,
    shift = const SHIFT,
    head = const HEAD_BYTES,
    key_shift = const KEY_SHIFT,
    units = const (1 << KEY_SHIFT) - 1,
    unit_shift = const UNIT_SHIFT,
    address_shift = const ADDRESS_SHIFT,
    together_shift = const TOGETHER_SHIFT,
    step_low = const STEP_MULTIPLIER & 0xFFFF,
    step_high = const STEP_MULTIPLIER >> 16,
    step_shift = const STEP_SHIFT,
);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
unsafe extern "C" {
    fn pysamp_frame();
    fn pysamp_frame_3_9();
    fn pysamp_frame_3_8();
}

/// The function that CPython 3.`minor` is given.
pub(super) fn hook(minor: u8) -> u64 {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let function = match minor {
            ..=8 => pysamp_frame_3_8,
            9..=11 => pysamp_frame_3_9,
            12.. => pysamp_frame,
        };
        function as *const () as u64
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = minor;
        0
    }
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod tests {
    use super::*;
    use crate::trampoline::Backend;
    use crate::trampoline::stub::Stubs;
    use crate::trampoline::table::{Keys, Table};

    type Frame = extern "C" fn(u64, u64, u32) -> u64;

    static SLOWLY: AtomicU64 = AtomicU64::new(0);

    extern "C" fn slow(frame: u64) -> u64 {
        SLOWLY.fetch_add(1, Ordering::Relaxed);
        // Whatever the C ABI lets a function change.
        std::hint::black_box(format!("{frame:?}").len());
        0
    }

    extern "C" fn evaluate(first: u64, second: u64, third: u32) -> u64 {
        first.wrapping_mul(3) ^ second ^ u64::from(third) << 32
    }

    /// A code object: a word, then its version. Two have different 16 bytes, wherever these begin.
    struct Code([u64; 2]);

    #[test]
    fn frames_reach_their_stubs_and_stubs_the_evaluator() {
        // Many versions share a home.
        let codes: Vec<Code> =
            (0..300).map(|number| Code([number, 7 + number % 3 + number / 3 * 1024])).collect();
        HOT.frame_code.store(8, Ordering::Relaxed);
        HOT.code_version.store(8, Ordering::Relaxed);
        HOT.evaluate.store(evaluate as *const () as u64, Ordering::Relaxed);
        set_slow(slow);
        let pairs =
            [8, 9, 12, 14].into_iter().flat_map(|it| Backend::ALL.map(|backend| (it, backend)));
        for (minor, backend) in pairs {
            let mut stubs = Stubs::reserve(backend).unwrap();
            assert!(stubs.make(300));
            let keys = if minor < 12 { Keys::Addresses } else { Keys::Versions };
            let mut table = Table::new(keys, stubs.address(0));
            // SAFETY: the machine code has this signature, as the stubs and `evaluate` have.
            let function = unsafe { std::mem::transmute::<u64, Frame>(hook(minor)) };
            let call = |code: &Code| {
                // A frame: a word, then the code object.
                let frame = [1, code.0.as_ptr() as u64 | u64::from(minor == 14)];
                let at = frame.as_ptr() as u64;
                let (first, second) = if minor == 8 { (at, 5) } else { (5, at) };
                assert_eq!(function(first, second, 1), evaluate(first, second, 1));
                SLOWLY.swap(0, Ordering::Relaxed)
            };
            let key = |code: &Code| keys.of(code.0.as_ptr() as u64, code.0[1] as u32).unwrap();
            HOT.table.store(0, Ordering::Release);
            assert_eq!(call(&codes[0]), 1, "without a table");
            HOT.table.store(table.address(), Ordering::Release);
            for (number, code) in codes.iter().enumerate() {
                assert_eq!(call(code), 1, "not in the table");
                table.insert(key(code), stubs.address(number as u32));
                HOT.table.store(table.address(), Ordering::Release);
                assert_eq!(call(code), 0);
            }
            if keys == Keys::Addresses {
                codes.iter().step_by(2).for_each(|code| table.remove(key(code)));
                for (number, code) in codes.iter().enumerate() {
                    assert_eq!(call(code), u64::from(number % 2 == 0));
                }
            } else {
                assert_eq!(codes.iter().map(call).sum::<u64>(), 0);
                assert_eq!(call(&Code([0, 0])), 1, "without a version");
            }
        }
        HOT.table.store(0, Ordering::Release);
    }
}
