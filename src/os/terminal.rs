//! How wide a terminal is, and whether it shows colours.
#![allow(unsafe_code)]

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd};

/// Columns of a terminal; `None` where it is none, or does not say.
pub fn columns(terminal: impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open as long as it is borrowed, and `size` is valid for writing.
    let status =
        unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (status == 0 && size.ws_col > 0).then_some(size.ws_col.into())
}

/// Whether it is a terminal that shows colours, and the user has not asked for none by `NO_COLOR`.
pub fn is_colored(terminal: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_plain = std::env::var_os("TERM").is_none_or(|kind| kind == "dumb");
    terminal.is_terminal() && !is_plain && !is_set("NO_COLOR")
}
