//! What CPython calls for each frame: machine code that looks up the stub of the frame's code object
//! and jumps there with the caller's arguments. It leaves no frame of its own on the stack.
//!
//! Only what is not in the table yet takes the slow way, through [`Slow`]. Of the interpreter's memory
//! it loads two words: the code object of the frame that the interpreter hands over, and that object's
//! version. Both are there as long as the call lasts, and [`HOT`] has their places only once they were
//! proved by reads that survive a mistake.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use super::table::{MULTIPLIER, SHIFT};

/// What the machine code reads. The order is known to it.
#[repr(C)]
pub(super) struct Hot {
    /// The table, or 0: all take the slow way.
    pub(super) table: AtomicU64,
    /// Place of the code object in a frame.
    pub(super) frame_code: AtomicU64,
    /// Place of the version in a code object, and the bits of it that are one: none before 3.12.
    pub(super) code_version: AtomicU64,
    pub(super) version_mask: AtomicU64,
    /// Stub number 0.
    pub(super) stubs: AtomicU64,
    /// `_PyEval_EvalFrameDefault`.
    pub(super) evaluate: AtomicU64,
}

pub(super) static HOT: Hot = Hot {
    table: AtomicU64::new(0),
    frame_code: AtomicU64::new(0),
    code_version: AtomicU64::new(0),
    version_mask: AtomicU64::new(0),
    stubs: AtomicU64::new(0),
    evaluate: AtomicU64::new(0),
};

/// Finds or makes the stub of a frame's code object: its address, or 0 for none.
pub(super) type Slow = extern "C" fn(frame: u64) -> u64;

/// Stubs lie this many bytes apart, as a power of two.
pub(super) const STRIDE_SHIFT: u32 = 7;

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
    // A frame of 3.9 on: thread in rdi, frame in rsi, throwflag in edx. All stay as they are.
    ".balign 64",
    ".globl pysamp_frame",
    ".hidden pysamp_frame",
    ".type pysamp_frame,@function",
    "pysamp_frame:",
    ".cfi_startproc",
    "endbr64",
    "mov r10, rsi",
    // r10: the frame; r11: what is hot; rax: the code object.
    "2:",
    "lea r11, [rip + {hot}]",
    "mov rax, qword ptr [r11 + 8]",
    "mov r9, qword ptr [r11]",
    "test r9, r9",
    "jz 6f",
    "mov rax, qword ptr [r10 + rax]",
    // A reference keeps flags in its low bits (3.14 on).
    "and rax, -8",
    "mov r8, qword ptr [r11 + 16]",
    "mov r8d, dword ptr [rax + r8]",
    "and r8d, dword ptr [r11 + 24]",
    "movabs rcx, {multiplier}",
    "imul rcx, rax",
    "shr rcx, {shift}",
    "and rcx, qword ptr [r9]",
    "3:",
    "cmp qword ptr [r9 + rcx + 16], rax",
    "jne 4f",
    "mov rax, qword ptr [r9 + rcx + 24]",
    "cmp eax, r8d",
    "jne 6f",
    "shr rax, 32",
    "shl rax, {stride_shift}",
    "add rax, qword ptr [r11 + 32]",
    "mov rcx, qword ptr [r11 + 40]",
    "jmp rax",
    "4:",
    "cmp qword ptr [r9 + rcx + 16], 0",
    "je 6f",
    "add rcx, 16",
    "and rcx, qword ptr [r9]",
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
    "mov rcx, qword ptr [rip + {hot} + 40]",
    "test rax, rax",
    "cmovz rax, rcx",
    "jmp rax",
    ".cfi_endproc",
    ".size pysamp_frame, .-pysamp_frame",
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
    multiplier = const MULTIPLIER,
    shift = const SHIFT,
    stride_shift = const STRIDE_SHIFT,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.pysamp_frame,\"ax\",@progbits",
    // A frame of 3.9 on: thread in x0, frame in x1, throwflag in w2. All stay as they are.
    ".balign 64",
    ".globl pysamp_frame",
    ".hidden pysamp_frame",
    ".type pysamp_frame,@function",
    "pysamp_frame:",
    ".cfi_startproc",
    "hint #34", // bti c
    "mov x8, x1",
    // x8: the frame; x9: what is hot; x10: the code object.
    "2:",
    "adrp x9, {hot}",
    "add x9, x9, :lo12:{hot}",
    "ldar x11, [x9]",
    "cbz x11, 6f",
    "ldr x10, [x9, #8]",
    "ldr x10, [x8, x10]",
    // A reference keeps flags in its low bits (3.14 on).
    "and x10, x10, #-8",
    "ldp x12, x13, [x9, #16]",
    "ldr w12, [x10, x12]",
    "and w12, w12, w13",
    "movz x13, #{m0}",
    "movk x13, #{m1}, lsl #16",
    "movk x13, #{m2}, lsl #32",
    "movk x13, #{m3}, lsl #48",
    "mul x13, x10, x13",
    "lsr x13, x13, #{shift}",
    "ldr x14, [x11]",
    "and x13, x13, x14",
    "3:",
    "add x15, x11, x13",
    "add x15, x15, #16",
    // Only then what belongs to it.
    "ldar x16, [x15]",
    "cmp x16, x10",
    "b.ne 4f",
    "ldr x16, [x15, #8]",
    "cmp w16, w12",
    "b.ne 6f",
    "lsr x16, x16, #32",
    "ldp x17, x3, [x9, #32]",
    "add x17, x17, x16, lsl #{stride_shift}",
    "br x17",
    "4:",
    "cbz x16, 6f",
    "add x13, x13, #16",
    "and x13, x13, x14",
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
    "ldr x3, [x9, #40]",
    "cmp x16, #0",
    "csel x16, x3, x16, eq",
    "br x16",
    ".cfi_endproc",
    ".size pysamp_frame, .-pysamp_frame",
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
    stride_shift = const STRIDE_SHIFT,
);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
unsafe extern "C" {
    fn pysamp_frame();
    fn pysamp_frame_3_8();
}

/// The function that CPython is given, whose arguments are those of 3.8 or those of later versions.
pub(super) fn hook(is_3_8: bool) -> u64 {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let function = if is_3_8 { pysamp_frame_3_8 } else { pysamp_frame };
        function as *const () as u64
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = is_3_8;
        0
    }
}

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod tests {
    use super::*;
    use crate::trampoline::stub::Stubs;
    use crate::trampoline::table::Table;

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

    #[test]
    fn frames_reach_their_stubs_and_stubs_the_evaluator() {
        // Frame: a word, then the code object. Code object: a word, then its version.
        let codes: Vec<[u64; 2]> = (0..300).map(|number| [number, 7 + number]).collect();
        let frames: Vec<[u64; 2]> =
            codes.iter().map(|code| [1, code.as_ptr() as u64 | 1]).collect();
        let mut stubs = Stubs::reserve().unwrap();
        assert!(stubs.make(300));
        let mut table = Table::new();
        HOT.frame_code.store(8, Ordering::Relaxed);
        HOT.code_version.store(8, Ordering::Relaxed);
        HOT.version_mask.store(0xFFFF_FFFF, Ordering::Relaxed);
        HOT.stubs.store(stubs.address(0), Ordering::Relaxed);
        HOT.evaluate.store(evaluate as *const () as u64, Ordering::Relaxed);
        set_slow(slow);
        // SAFETY: the machine code has this signature, as the stubs and `evaluate` have.
        let [new, old]: [Frame; 2] =
            unsafe { [hook(false), hook(true)].map(|at| std::mem::transmute::<u64, Frame>(at)) };
        let call = |frame: &[u64; 2]| {
            let at = frame.as_ptr() as u64;
            assert_eq!(new(5, at, 1), evaluate(5, at, 1));
            assert_eq!(old(at, 5, 1), evaluate(at, 5, 1));
            SLOWLY.swap(0, Ordering::Relaxed)
        };
        assert_eq!(call(&frames[0]), 2, "without a table");
        HOT.table.store(table.address(), Ordering::Release);
        for (number, frame) in frames.iter().enumerate() {
            assert_eq!(call(frame), 2, "not in the table");
            let code = codes[number].as_ptr() as u64 & !7;
            table.insert(code, 7, number as u32);
            assert_eq!(call(frame), if number == 0 { 0 } else { 2 }, "another version");
            table.insert(code, 7 + number as u32, number as u32);
            assert_eq!(call(frame), 0);
        }
        HOT.table.store(0, Ordering::Release);
    }
}
