//! Terminals of the host in an image, and out of it.
//!
//! What is between their ends is the host's, and not in the image: bytes that nobody has read are lost with the terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::fs::OpenFlags;
use moat_abi::tty::{Termios2, Winsize};
use moat_host::tty::{self, When};
use moat_image::state::{HostTerminalFileState, HostTerminalState, OpenFileKind, SeveredKind, SeveredState};
use moat_image::{ImageError, Ref, Refusal};
use moat_vfs::cred::Credentials;
use moat_vfs::persist::{Restorer, SaveFiles};
use moat_vfs::{OpenFile, Path, Vfs};

use super::HostTerminal;
use crate::severed;
use crate::stdio::HostStream;

/// What a terminal out of an image shows of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// What it showed before.
    Same,
    /// Something else: its foreground group has to be told.
    Changed,
}

impl HostTerminal {
    /// Its name in an image.
    pub(super) fn save_terminal(&self, saver: &mut dyn SaveFiles) -> Result<Ref<HostTerminalState>, Refusal> {
        let console = self.console.load(Ordering::Relaxed);
        let container = saver.container();
        saver.host_terminals().save(std::ptr::from_ref(self).addr(), || {
            // Of one that has hung up nothing is known; nothing will be needed.
            let t = tty::termios(&self.fd).unwrap_or_default();
            let Winsize { ws_row, ws_col, ws_xpixel, ws_ypixel } = tty::winsize(&self.fd).unwrap_or_default();
            Ok(HostTerminalState {
                console,
                container,
                modes: [t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag],
                line: t.c_line,
                control: t.c_cc.to_vec(),
                speeds: (t.c_ispeed, t.c_ospeed),
                winsize: [ws_row, ws_col, ws_xpixel, ws_ypixel],
            })
        })
    }

    /// An opening of it.
    pub(crate) fn save_file(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> Result<OpenFileKind, Refusal> {
        let terminal = self.save_terminal(saver)?;
        // One without a name in the container is shown by its number.
        let path = saver.path(f.path()).ok();
        let ino = f.metadata().map_or(1, |meta| meta.ino);
        Ok(OpenFileKind::HostTerminal(HostTerminalFileState { terminal, path, shown: f.path().text(None), ino }))
    }

    /// Gives it the settings of the one in an image that it takes the place of, and its size, if it has none of its own.
    ///
    /// # Errors
    /// Settings that are none.
    pub fn settle(&self, saved: &HostTerminalState) -> Result<Window, ImageError> {
        let termios = Termios2::from_parts(saved.modes, saved.line, &saved.control, saved.speeds);
        let termios = termios.ok_or_else(|| ImageError::state("a terminal's control characters"))?;
        let failed = |e: moat_abi::Errno| ImageError::Unfit(format!("setting the terminal up: {e}"));
        tty::set_termios(&self.fd, termios, When::Now).map_err(failed)?;
        let [ws_row, ws_col, ws_xpixel, ws_ypixel] = saved.winsize;
        let was = Winsize { ws_row, ws_col, ws_xpixel, ws_ypixel };
        let is = tty::winsize(&self.fd).map_err(failed)?;
        if (is.ws_row, is.ws_col) == (0, 0) {
            // A client that has just made it says its size later.
            tty::set_winsize(&self.fd, was).map_err(failed)?;
            return Ok(Window::Same);
        }
        Ok(if is == was { Window::Same } else { Window::Changed })
    }

    /// It is the container's console.
    pub fn set_console(&self) {
        self.console.store(true, Ordering::Relaxed);
    }
}

/// Opens a terminal of an image: `terminal`, which is given in its place, or one that has hung up.
///
/// # Errors
/// A name that no file has.
pub fn open_again(
    terminal: Option<&Arc<HostTerminal>>,
    saved: &HostTerminalFileState,
    restorer: &Restorer<'_>,
    vfs: &Vfs,
    flags: OpenFlags,
    creds: &Arc<Credentials>,
) -> Result<Arc<OpenFile>, ImageError> {
    let state = SeveredState { kind: SeveredKind::Terminal, shown: saved.shown.clone(), ino: saved.ino };
    let severed = severed::restore(vfs, &state, flags, creds)?;
    let Some(terminal) = terminal else { return Ok(severed) };
    // The new one may have no name in the container.
    let path: Option<Path> = saved.path.as_ref().and_then(|path| restorer.path(path).ok());
    let path = path.unwrap_or_else(|| severed.path().clone());
    Ok(OpenFile::new(Arc::new(HostStream::of_terminal(terminal)), path, flags, creds.clone()))
}
