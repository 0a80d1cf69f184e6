//! Symbols of this process by name: from the dynamic tables, from the linker where this is part of
//! the program, or from the executable's own file where it was linked without exporting them.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicPtr, Ordering};

use object::{Object, ObjectSection, ObjectSymbol};

/// The address of a dynamic symbol in any library loaded globally, or in a loaded libpython.
pub fn dynamic(name: &CStr) -> Option<u64> {
    // SAFETY: `name` is a C string; RTLD_DEFAULT searches without loading anything.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if !found.is_null() {
        return Some(found as u64);
    }
    // An application that embeds Python may have opened it with RTLD_LOCAL.
    loaded_libraries().iter().filter(|path| path.to_string_lossy().contains("libpython")).find_map(
        |path| {
            // SAFETY: RTLD_NOLOAD only takes a handle of what is loaded already; the handle is
            // kept, so that the library stays.
            let symbol = unsafe {
                let handle = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
                if handle.is_null() {
                    return None;
                }
                libc::dlsym(handle, name.as_ptr())
            };
            (!symbol.is_null()).then_some(symbol as u64)
        },
    )
}

/// The address of a symbol, by a literal name, of the program that this is linked into; `None` where
/// it has none. Found even if the program exports nothing and was stripped.
///
/// In the shared library the build sets Python's names to 0, so that they are not looked for.
macro_rules! linked {
    ($name:literal) => {{
        let address: u64;
        // A weak symbol may be missing; there is no other way to name one.
        #[cfg(target_arch = "x86_64")]
        // SAFETY: loads an entry of the global offset table, which the linker makes for it.
        unsafe {
            std::arch::asm!(
                concat!(".weak ", $name),
                concat!("mov {0}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                out(reg) address,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!(
                concat!(".weak ", $name),
                concat!("adrp {0}, :got:", $name),
                concat!("ldr {0}, [{0}, :got_lo12:", $name, "]"),
                out(reg) address,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            address = 0;
        }
        $crate::os::symbols::unless_missing(address)
    }};
}
pub(crate) use linked;

/// Nothing, if the linker had nothing to put in the place of an address.
pub fn unless_missing(address: u64) -> Option<u64> {
    // Some linkers count the 0 from where the library was loaded.
    let own_start = || {
        // SAFETY: an all-zero Dl_info is a valid value; dladdr fills it for an address of ours.
        unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            let is_known = libc::dladdr(unless_missing as *const libc::c_void, &mut info) != 0;
            is_known.then_some(info.dli_fbase as u64)
        }
    };
    (address != 0 && Some(address) != own_start()).then_some(address)
}

/// A function that the library defines as well and stands before, such as the C library's.
pub struct Next {
    name: &'static CStr,
    found: AtomicPtr<libc::c_void>,
}

impl Next {
    /// Not looked up yet.
    pub const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Its address. Async-signal-safe from the second time on.
    pub fn find(&self) -> Option<*const libc::c_void> {
        let mut found = self.found.load(Ordering::Relaxed);
        if found.is_null() {
            // SAFETY: the name is a C string; the search begins behind this library and loads
            // nothing.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.found.store(found, Ordering::Relaxed);
        }
        (!found.is_null()).then_some(found.cast_const())
    }
}

/// The file of the running executable, for what it does not export.
pub struct Executable {
    bytes: Vec<u8>,
}

impl Executable {
    /// Reads the file: the one that runs, even if its name belongs to another by now.
    pub fn open() -> Option<Self> {
        Some(Self { bytes: std::fs::read("/proc/self/exe").ok()? })
    }

    /// Address of a symbol, from the symbol table, which stripping takes away.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        let file = object::File::parse(&*self.bytes).ok()?;
        let found = file
            .symbols()
            .find(|candidate| candidate.name() == Ok(name) && candidate.is_definition())?;
        Some(found.address() + load_bias(&file))
    }

    /// Address of a section, from the section table, which stripping keeps.
    pub fn section(&self, name: &str) -> Option<u64> {
        let file = object::File::parse(&*self.bytes).ok()?;
        Some(file.section_by_name(name)?.address() + load_bias(&file))
    }
}

fn load_bias(file: &object::File<'_>) -> u64 {
    if file.kind() == object::ObjectKind::Dynamic { executable_bias() } else { 0 }
}

fn loaded_libraries() -> Vec<CString> {
    extern "C" fn collect(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        paths: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid record, and `paths` is the vector given below.
        unsafe {
            if !(*info).dlpi_name.is_null() {
                (*paths.cast::<Vec<CString>>()).push(CStr::from_ptr((*info).dlpi_name).to_owned());
            }
        }
        0
    }
    let mut paths: Vec<CString> = Vec::new();
    // SAFETY: `collect` has the callback's form and `paths` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut paths).cast()) };
    paths
}

/// How far the executable was moved from the addresses in its file.
fn executable_bias() -> u64 {
    extern "C" fn first(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        bias: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid record, and `bias` is the integer given below.
        unsafe { *bias.cast::<u64>() = (*info).dlpi_addr };
        1
    }
    let mut bias = 0_u64;
    // SAFETY: `first` has the callback's form and `bias` outlives the call. The executable is the
    // first object that is reported.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut bias).cast()) };
    bias
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_linked_is_found_and_what_is_not_is_missing() {
        assert_eq!(linked!("getpid"), super::dynamic(c"getpid"));
        assert_ne!(linked!("getpid"), None);
        assert_eq!(linked!("_PyRuntime"), None);
    }
}
