//! A Rust program that embeds Python and profiles it: options, then the Python code to run.

use std::ffi::{CString, c_char, c_int};

use pysamp::ffi::{PysampStatus, pysamp_start, pysamp_stop};

unsafe extern "C" {
    fn Py_Initialize();
    fn PyRun_SimpleString(code: *const c_char) -> c_int;
    fn Py_FinalizeEx() -> c_int;
}

fn main() {
    let arguments: Vec<CString> =
        std::env::args().skip(1).map(|argument| CString::new(argument).unwrap()).collect();
    let [options, code] = arguments.as_slice() else { panic!("options and code are expected") };
    // SAFETY: both are C strings; Python is used by this thread alone.
    unsafe {
        assert_eq!(pysamp_start(options.as_ptr()), PysampStatus::PysampOk);
        Py_Initialize();
        assert_eq!(PyRun_SimpleString(code.as_ptr()), 0);
        assert_eq!(Py_FinalizeEx(), 0);
    }
    assert_eq!(pysamp_stop(), PysampStatus::PysampOk);
}
