//! How a stub is unwound: DWARF call frame information, as it is in a program's `.eh_frame` and
//! `.eh_frame_hdr` sections. It is the same for all stubs, as every address in it is relative.

use super::stub::CODE;

/// Byte codes of call frame instructions, and of pointer encodings (DWARF 5, 6.4.2; Linux Standard
/// Base, 10.5 and 10.6).
const DEF_CFA: u8 = 0x0C;
const DEF_CFA_REGISTER: u8 = 0x0D;
const DEF_CFA_OFFSET: u8 = 0x0E;
const NOP: u8 = 0;
const ADVANCE: u8 = 0x40;
const OFFSET: u8 = 0x80;
const RESTORE: u8 = 0xC0;
const PC_RELATIVE_32: u8 = 0x1B;
const DATA_RELATIVE_32: u8 = 0x3B;
const UNSIGNED_32: u8 = 0x03;

/// Where the stack pointer leads before anything is pushed, and where the return address is.
#[cfg(not(target_arch = "aarch64"))]
mod machine {
    use super::*;
    const FRAME_POINTER: u8 = 6;
    const STACK_POINTER: u8 = 7;
    pub(super) const RETURN_ADDRESS: u8 = 16;
    pub(super) const AT_ENTRY: [u8; 5] = [DEF_CFA, STACK_POINTER, 8, OFFSET | RETURN_ADDRESS, 1];
    #[rustfmt::skip]
    pub(super) const WITHIN: [u8; 12] = [
        ADVANCE | 5, DEF_CFA_OFFSET, 16, OFFSET | FRAME_POINTER, 2, // endbr64, push
        ADVANCE | 3, DEF_CFA_REGISTER, FRAME_POINTER, // mov
        ADVANCE | 3, DEF_CFA, STACK_POINTER, 8, // call, pop
    ];
    pub(super) const RESTORED: [u8; 1] = [RESTORE | FRAME_POINTER];
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::*;
    const FRAME_POINTER: u8 = 29;
    pub(super) const RETURN_ADDRESS: u8 = 30;
    const STACK_POINTER: u8 = 31;
    pub(super) const AT_ENTRY: [u8; 3] = [DEF_CFA, STACK_POINTER, 0];
    #[rustfmt::skip]
    pub(super) const WITHIN: [u8; 14] = [
        ADVANCE | 8, DEF_CFA_OFFSET, 16, OFFSET | FRAME_POINTER, 2, OFFSET | RETURN_ADDRESS, 1, // stp
        ADVANCE | 4, DEF_CFA_REGISTER, FRAME_POINTER, // mov
        ADVANCE | 8, DEF_CFA, STACK_POINTER, 0, // blr, ldp
    ];
    pub(super) const RESTORED: [u8; 2] = [RESTORE | FRAME_POINTER, RESTORE | RETURN_ADDRESS];
}

/// Both sections of one stub.
pub(super) struct Unwinding {
    /// `.eh_frame`, and right behind it `.eh_frame_hdr`.
    pub(super) sections: Vec<u8>,
    /// Bytes of the latter.
    pub(super) header_bytes: usize,
}

impl Unwinding {
    /// For a stub that `.eh_frame` follows at the next multiple of eight bytes.
    pub(super) fn new() -> Self {
        const CODE_ALIGNMENT: u8 = 1;
        /// -8, as a signed LEB128 number.
        const DATA_ALIGNMENT: u8 = 0x78;
        let from_code = CODE.len().next_multiple_of(8);

        let mut sections = Vec::new();
        // The common part: no id, version 1, what is said of pointers.
        let mut common = vec![0, 0, 0, 0, 1];
        common.extend_from_slice(b"zR\0");
        common.extend([CODE_ALIGNMENT, DATA_ALIGNMENT, machine::RETURN_ADDRESS]);
        common.extend([1, PC_RELATIVE_32]);
        common.extend(machine::AT_ENTRY);
        push_entry(&mut sections, &common);

        let entry_at = sections.len();
        let pointer_at = entry_at + 4;
        let start_at = pointer_at + 4;
        let mut entry = Vec::new();
        entry.extend((pointer_at as u32).to_ne_bytes());
        entry.extend(negative(from_code + start_at));
        entry.extend((CODE.len() as u32).to_ne_bytes());
        entry.push(0);
        entry.extend(machine::WITHIN);
        entry.extend(machine::RESTORED);
        push_entry(&mut sections, &entry);
        // No more entries.
        sections.extend([0; 4]);

        let header_at = sections.len();
        sections.extend([1, PC_RELATIVE_32, UNSIGNED_32, DATA_RELATIVE_32]);
        sections.extend(negative(header_at + 4));
        sections.extend(1_u32.to_ne_bytes());
        sections.extend(negative(from_code + header_at));
        sections.extend(negative(header_at - entry_at));
        let header_bytes = sections.len() - header_at;
        Self { sections, header_bytes }
    }

    /// How much of the address space behind the stub perf gives to the sections.
    pub(super) fn mapped_bytes(&self) -> usize {
        self.sections.len().next_multiple_of(16)
    }
}

/// An entry with its length before it, padded.
fn push_entry(sections: &mut Vec<u8>, body: &[u8]) {
    let length = body.len().next_multiple_of(8) + 4;
    sections.extend((length as u32).to_ne_bytes());
    sections.extend_from_slice(body);
    sections.resize(sections.len() + length - body.len(), NOP);
}

/// A distance backwards.
fn negative(distance: usize) -> [u8; 4] {
    (-(distance as i32)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trampoline::Backend;
    use crate::trampoline::stub::stride;

    #[test]
    fn it_lies_before_the_next_stub() {
        let unwinding = Unwinding::new();
        assert!(
            CODE.len().next_multiple_of(8) + unwinding.mapped_bytes() <= stride(Backend::JitDump)
        );
        assert_eq!(unwinding.header_bytes, 20);
        assert_eq!((unwinding.sections.len() - unwinding.header_bytes) % 4, 0);
    }
}
