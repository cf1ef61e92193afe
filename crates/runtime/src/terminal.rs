//! [`TerminalGuard`]: the caller's terminal gets its settings back.

use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Puts the settings of a terminal back when dropped: the guest may have changed them.
#[derive(Debug)]
pub struct TerminalGuard {
    terminal: OwnedFd,
    settings: Termios,
}

impl TerminalGuard {
    /// Notes the settings of standard input; `None` if that is no terminal.
    #[must_use]
    pub fn of_stdin() -> Option<Self> {
        let stdin = std::io::stdin();
        let settings = tcgetattr(&stdin).ok()?;
        Some(TerminalGuard { terminal: stdin.as_fd().try_clone_to_owned().ok()?, settings })
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.settings);
    }
}
