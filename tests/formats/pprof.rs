//! pprof: what `go tool pprof` says of a file, and what else is in it.

#[test]
fn dump() {
    use super::{consumers::write_to, sample};
    use pysamp::export::Format;
    let Some(to) = std::env::var_os("DUMP") else { return };
    let to = std::path::PathBuf::from(to);
    for (name, profile) in [("plain", sample::plain()), ("all", sample::everything())] {
        for format in Format::ALL {
            write_to(&to.join(format!("{name}.{}.{}", format.name(), format.extension())), format, &profile);
        }
    }
}
