//! Writes `include/pysamp.h` from the C functions in `src/ffi`.

fn main() {}
