//! The `pysamp` command.

fn main() {}
