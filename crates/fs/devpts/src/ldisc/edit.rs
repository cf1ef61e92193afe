//! Editing of the line in canonical mode: erase, word erase, kill, reprint (`eraser` in Linux's `n_tty.c`).

use moat_abi::tty::{LocalFlags, VERASE, VKILL};

use super::LineDiscipline;
use super::chars::{is_alphanumeric, is_control};
use super::echo::{Echo, TabOrigin};

/// How much an editing character erases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Erase {
    /// The last character.
    Char,
    /// The last word.
    Word,
    /// The line.
    Line,
}

impl LineDiscipline {
    /// Erases from the edited line and shows it as the ECHO flags say.
    pub(super) fn erase(&mut self, what: Erase) {
        if self.input.line_is_empty() {
            return;
        }
        let echo = self.local(LocalFlags::ECHO);
        if what == Erase::Line {
            if !echo {
                self.input.drop_line();
                return;
            }
            let visual = [LocalFlags::ECHOK, LocalFlags::ECHOKE, LocalFlags::ECHOE].iter().all(|f| self.local(*f));
            // Only all three together erase the line on the screen.
            if !visual {
                self.input.drop_line();
                self.finish_erasing();
                self.echo_char(self.cc(VKILL));
                if self.local(LocalFlags::ECHOK) {
                    self.echo_raw(b'\n');
                }
                return;
            }
        }
        let mut in_word = false;
        while let Some((start, first)) = self.last_char() {
            if what == Erase::Word {
                // Up to the start of a word, with what comes behind it.
                if is_alphanumeric(first) || first == b'_' {
                    in_word = true;
                } else if in_word {
                    break;
                }
            }
            let end = self.input.line().end;
            self.input.truncate(start);
            if echo {
                self.show_erased(what, start, end, first);
            }
            if what == Erase::Char {
                break;
            }
        }
        if self.input.line_is_empty() && echo {
            self.finish_erasing();
        }
    }

    /// Where the last character of the edited line starts, and its first byte; `None` if no whole character is left.
    fn last_char(&self) -> Option<(usize, u8)> {
        // The bytes of one UTF-8 character go together.
        let start = self.input.line().rev().find(|p| !self.is_continuation(self.input.byte(*p)))?;
        Some((start, self.input.byte(start)))
    }

    /// Echoes the erasure of the character at `start..end`, which begins with `first`.
    fn show_erased(&mut self, what: Erase, start: usize, end: usize, first: u8) {
        if self.local(LocalFlags::ECHOPRT) {
            if !self.erasing {
                self.echo_raw(b'\\');
                self.erasing = true;
            }
            self.echo_char(first);
            for p in start + 1..end {
                self.echo_raw(self.input.byte(p));
                // A character takes one column, however many bytes it has.
                self.echo_op(Echo::MoveBack);
            }
        } else if what == Erase::Char && !self.local(LocalFlags::ECHOE) {
            self.echo_char(self.cc(VERASE));
        } else if first == b'\t' {
            self.show_erased_tab();
        } else {
            let visible = self.local(LocalFlags::ECHOCTL);
            // Control characters were shown as `^X` or not at all.
            let cells = match (is_control(first), visible) {
                (true, true) => 2,
                (true, false) => 0,
                (false, _) => 1,
            };
            for _ in 0..cells {
                b"\x08 \x08".iter().for_each(|c| self.echo_raw(*c));
            }
        }
    }

    /// Goes back over a tab: the columns from the tab stop (or line start) before it say how far.
    fn show_erased_tab(&mut self) {
        let mut columns = 0usize;
        let mut from = TabOrigin::LineStart;
        for p in self.input.line().rev() {
            let c = self.input.byte(p);
            // How wide a tab was depends on the column that it began in, and that on all since the tab before.
            if c == b'\t' {
                from = TabOrigin::Tab;
                break;
            }
            if is_control(c) {
                // Shown as ^X, or not at all.
                columns += if self.local(LocalFlags::ECHOCTL) { 2 } else { 0 };
            } else if !self.is_continuation(c) {
                columns += 1;
            }
        }
        self.echo_op(Echo::EraseTab { columns: (columns & 7) as u8, from });
    }

    /// Closes the `\.../` of ECHOPRT.
    pub(super) fn finish_erasing(&mut self) {
        if self.erasing {
            self.echo_raw(b'/');
            self.erasing = false;
        }
    }

    /// Shows the edited line again on a new line (VREPRINT).
    pub(super) fn reprint(&mut self, c: u8) {
        self.finish_erasing();
        self.echo_char(c);
        self.echo_raw(b'\n');
        for p in self.input.line() {
            self.echo_char(self.input.byte(p));
        }
        self.commit_echoes();
    }
}
