//! `--browser`: shows the page that was written.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::Format;
use crate::session::is_directory;

/// The file to open of what was written in a format, if a browser shows it.
fn page(format: Format, path: &Path) -> Option<PathBuf> {
    match format {
        Format::Heatmap if is_directory(format, path) => Some(path.join("index.html")),
        Format::Heatmap | Format::Html | Format::Svg => Some(path.to_owned()),
        _ => None,
    }
}

/// Refuses formats of which there is none to open.
pub(super) fn check(formats: &[Format]) -> Result<(), Failure> {
    match formats.iter().any(|format| page(*format, Path::new("")).is_some()) {
        true => Ok(()),
        false => Err(Failure::usage("'--browser' opens a page; add --flamegraph")),
    }
}

/// Opens the first page of what was written in some formats, one file each.
pub(super) fn open(formats: &[Format], written: &[PathBuf]) -> Result<(), Failure> {
    let mut pages = formats.iter().zip(written).filter_map(|(format, path)| page(*format, path));
    let Some(page) = pages.next() else { return Ok(()) };
    // What the error says is of the commands that were tried.
    open::that_detached(&page).map_err(|_| {
        let page = page.display();
        Failure::broken(format!("no browser could be started here; '{page}' is there to be opened"))
    })
}
