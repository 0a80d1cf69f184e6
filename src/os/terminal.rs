//! How wide a terminal is.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

/// Columns of a terminal; `None` where it is none, or does not say.
pub fn columns(terminal: impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open as long as it is borrowed, and `size` is valid for writing.
    let status =
        unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (status == 0 && size.ws_col > 0).then_some(size.ws_col.into())
}
