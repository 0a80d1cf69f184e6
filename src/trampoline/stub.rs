//! The stubs: one small function of machine code for each Python function, all alike but for where
//! they lie, which is what tells them apart.
//!
//! A stub has the interpreter's arguments and, in the fourth register, the function that evaluates the
//! frame. It keeps the chain of frame pointers, calls that function, and returns what that returns. It
//! belongs to a name, not to a code object, and is never unmapped: a thread may be in it at any time.
#![allow(unsafe_code)]

use super::Backend;

/// Stubs lie at multiples of 16 bytes.
pub(super) const UNIT_SHIFT: u32 = 4;

/// How many there can be: more functions than are ever told apart.
const MOST: usize = 1 << 18;

/// From one stub of a dump to the next, in bytes: perf takes what unwinds a stub as lying right behind it.
/// The first bytes of multiples of 128 would share half of the sets of the processor's cache.
const DUMP_STRIDE: usize = if cfg!(target_arch = "aarch64") { 128 } else { 112 };

/// The places of stubs, in multiples of 16 bytes, are less.
pub(super) const MOST_UNITS: usize = (MOST * (DUMP_STRIDE >> UNIT_SHIFT)).next_power_of_two();

/// From one stub to the next, in bytes: as little as can be, so that many fit into the cache.
pub(super) fn stride(backend: Backend) -> usize {
    match backend {
        Backend::Map => CODE.len().next_multiple_of(1 << UNIT_SHIFT),
        Backend::JitDump => DUMP_STRIDE,
    }
}

/// So many are made at once: they fill pages of any size.
const CHUNK: usize = 4096;

#[cfg(not(target_arch = "aarch64"))]
pub(super) const CODE: [u8; 16] = [
    0xF3, 0x0F, 0x1E, 0xFA, // endbr64
    0x55, // push rbp
    0x48, 0x89, 0xE5, // mov rbp, rsp
    0xFF, 0xD1, // call rcx
    0x5D, // pop rbp
    0xC3, // ret
    0xCC, 0xCC, 0xCC, 0xCC,
];

#[cfg(target_arch = "aarch64")]
pub(super) const CODE: [u8; 24] = [
    0x5F, 0x24, 0x03, 0xD5, // bti c
    0xFD, 0x7B, 0xBF, 0xA9, // stp x29, x30, [sp, #-16]!
    0xFD, 0x03, 0x00, 0x91, // mov x29, sp
    0x60, 0x00, 0x3F, 0xD6, // blr x3
    0xFD, 0x7B, 0xC1, 0xA8, // ldp x29, x30, [sp], #16
    0xC0, 0x03, 0x5F, 0xD6, // ret
];

/// A range of addresses, the first part of which is stubs.
pub(super) struct Stubs {
    base: u64,
    stride: usize,
    made: usize,
}

impl Stubs {
    /// Takes the addresses; no memory yet. `None` where there are not so many left.
    pub(super) fn reserve(backend: Backend) -> Option<Self> {
        let stride = stride(backend);
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), MOST * stride, libc::PROT_NONE, flags, -1, 0)
        };
        (base != libc::MAP_FAILED).then_some(Self { base: base as u64, stride, made: 0 })
    }

    /// Where a stub lies, or would.
    pub(super) fn address(&self, number: u32) -> u64 {
        self.base + u64::from(number) * self.stride as u64
    }

    /// Sees to it that there are so many. False where there is no memory for them, or none may be
    /// executed.
    pub(super) fn make(&mut self, wanted: u32) -> bool {
        while self.made < wanted as usize {
            if self.made == MOST || !self.make_chunk() {
                return false;
            }
        }
        true
    }

    /// Memory is never to be written and executed at the same time.
    fn make_chunk(&mut self) -> bool {
        let start = self.address(self.made as u32) as *mut u8;
        let length = CHUNK * self.stride;
        let protect = |protection| {
            // SAFETY: the chunk lies in this value's own mapping, and no thread is in it yet.
            unsafe { libc::mprotect(start.cast(), length, protection) == 0 }
        };
        if !protect(libc::PROT_READ | libc::PROT_WRITE) {
            return false;
        }
        // SAFETY: as above; it can be written now, and nobody else knows of it.
        let chunk = unsafe { std::slice::from_raw_parts_mut(start, length) };
        for stub in chunk.chunks_exact_mut(self.stride) {
            stub[..CODE.len()].copy_from_slice(&CODE);
        }
        synchronize(start as u64, length);
        if !protect(libc::PROT_READ | libc::PROT_EXEC) {
            return false;
        }
        self.made += CHUNK;
        true
    }
}

/// Lets the processor's instruction caches know what was written.
#[cfg(target_arch = "aarch64")]
fn synchronize(start: u64, length: usize) {
    /// The smallest that a line can be.
    const LINE: usize = 16;
    for address in (start..start + length as u64).step_by(LINE) {
        // SAFETY: cleaning a line of memory that is mapped changes nothing.
        unsafe { core::arch::asm!("dc cvau, {}", in(reg) address) };
    }
    // SAFETY: barriers and cache maintenance of memory that is mapped.
    unsafe { core::arch::asm!("dsb ish") };
    for address in (start..start + length as u64).step_by(LINE) {
        // SAFETY: as above.
        unsafe { core::arch::asm!("ic ivau, {}", in(reg) address) };
    }
    // SAFETY: barriers.
    unsafe { core::arch::asm!("dsb ish", "isb") };
}

/// They see what is written.
#[cfg(not(target_arch = "aarch64"))]
fn synchronize(_start: u64, _length: usize) {}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn stubs_call_what_they_are_given() {
        type Stub = extern "C" fn(u64, u64, u64, extern "C" fn(u64, u64, u64) -> u64) -> u64;
        extern "C" fn evaluate(first: u64, second: u64, third: u64) -> u64 {
            first << 32 | second << 16 | third
        }
        for backend in Backend::ALL {
            let mut stubs = Stubs::reserve(backend).unwrap();
            assert!(stubs.make(10_000));
            for number in [0, 1, 511, 512, 4095, 4096, 9999] {
                // SAFETY: a stub has this signature.
                let stub = unsafe { std::mem::transmute::<u64, Stub>(stubs.address(number)) };
                assert_eq!(stub(1, 2, 3, evaluate), 0x1_0002_0003);
            }
            assert!(!stubs.make(MOST as u32 + 1));
        }
    }
}
