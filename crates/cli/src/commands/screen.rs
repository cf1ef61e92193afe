//! [`Screen`]: text that is drawn anew at intervals, in place on a terminal, one after the other elsewhere.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use moat_abi::{SigSet, Signal};
use moat_host::signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Another page, without cursor and wrapped lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// The page that was there before.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Where text is drawn.
pub(super) struct Screen {
    terminal: bool,
    signals: OwnedFd,
}

impl Screen {
    /// Takes over standard output; signals that end a command are taken from here on, so that a terminal is left as it was.
    pub(super) fn open() -> anyhow::Result<Screen> {
        let set = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGWINCH];
        let set = set.iter().fold(SigSet::EMPTY, |set, signal| set.union(signal.bit()));
        let signals = signals::set_mask(set).and_then(|_| signals::signalfd(set));
        let signals = signals.map_err(|errno| anyhow::anyhow!("receiving signals: {errno}"))?;
        let screen = Screen { terminal: std::io::stdout().is_terminal(), signals };
        if screen.terminal {
            super::print(ENTER)?;
        }
        Ok(screen)
    }

    /// Draws what `page` gives for the terminal's size (lines, columns), every `interval`, until a signal ends it or it was drawn `times`.
    pub(super) fn run(
        &self,
        interval: Duration,
        times: Option<u64>,
        mut page: impl FnMut() -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        if interval.is_zero() {
            bail!("--interval must be greater than 0");
        }
        let mut drawn = 0;
        while times.is_none_or(|times| drawn < times) {
            self.draw(&page()?)?;
            drawn = drawn.saturating_add(1);
            // No wait after the last page.
            if times.is_some_and(|times| drawn >= times) || self.wait(interval)? == Next::End {
                break;
            }
        }
        Ok(())
    }

    fn draw(&self, text: &str) -> anyhow::Result<()> {
        // A file or pipe gets page after page, without control sequences.
        if !self.terminal {
            let mut out = std::io::stdout().lock();
            return writeln!(out, "{text}").and_then(|()| out.flush()).context("writing to standard output");
        }
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        // No more lines than fit: scrolling would move the page.
        let rows = size.map_or(24, |size| usize::from(size.ws_row)).max(2);
        // Drawn over the last page, line by line, instead of cleared first: that would flicker.
        let mut page = String::from("\x1b[H");
        for line in text.lines().take(rows.saturating_sub(1)) {
            page.push_str(line);
            page.push_str("\x1b[K\r\n");
        }
        page.push_str("\x1b[J");
        super::print(&page)?;
        std::io::stdout().lock().flush().context("writing to standard output")
    }

    fn wait(&self, interval: Duration) -> anyhow::Result<Next> {
        // A deadline, so that interrupted waits do not add up.
        let deadline = Instant::now() + interval;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).context("--interval")?;
            match poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(Next::Draw),
                Err(rustix::io::Errno::INTR) => {}
                other => {
                    other.context("waiting")?;
                    let signal = signals::read_signalfd(self.signals.as_fd());
                    let resized = Signal::SIGWINCH.number().cast_unsigned();
                    return Ok(match signal {
                        Ok(info) if info.ssi_signo == resized => Next::Draw,
                        _ => Next::End,
                    });
                }
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            // Nothing can be done if it fails.
            let _ = super::print(LEAVE);
            let _ = std::io::stdout().lock().flush();
        }
    }
}

/// What comes after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Draw,
    End,
}
