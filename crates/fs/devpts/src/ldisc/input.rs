//! Input processing: `c_iflag`, signals, flow control and canonical mode (`n_tty_receive_*` in Linux's `n_tty.c`).

use moat_abi::tty::{
    InputFlags, LocalFlags, VDISABLE, VEOF, VEOL, VEOL2, VERASE, VINTR, VKILL, VLNEXT, VQUIT, VREPRINT, VSTART, VSTOP,
    VSUSP, VWERASE,
};
use moat_abi::{PollEvents, Signal};

use super::LineDiscipline;
use super::buffer::SIZE;
use super::chars::to_lower;
use super::echo::Echo;
use super::edit::Erase;

/// Whether a character was dealt with or goes on as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handled {
    Yes,
    No,
}

impl LineDiscipline {
    /// Processes input; gives how much of it there was room for.
    ///
    /// A line that fills the buffer in canonical mode takes further characters in its last place, so that
    /// it can still be ended.
    pub(super) fn receive(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            let free = SIZE - self.input.len();
            // With PARMRK a byte may become three.
            let free = if self.iflag(InputFlags::PARMRK) { free.div_ceil(3) } else { free };
            let n = match free {
                0 | 1 => {
                    // With no line to read, only the end of this one can help.
                    if !self.local(LocalFlags::ICANON) || self.input.has_line() {
                        break;
                    }
                    if free == 0 {
                        self.input.overwrite_last();
                    }
                    1
                }
                // The last place is for the end of the line.
                _ => free - 1,
            };
            let chunk = &data[done..data.len().min(done + n)];
            self.receive_chunk(chunk);
            done += chunk.len();
        }
        done
    }

    fn receive_chunk(&mut self, chunk: &[u8]) {
        let strips =
            self.iflag(InputFlags::ISTRIP) || (self.iflag(InputFlags::IUCLC) && self.local(LocalFlags::IEXTEN));
        if self.is_raw() || (self.local(LocalFlags::EXTPROC) && !strips) {
            // There is nothing to process.
            chunk.iter().for_each(|c| self.input.push(*c));
        } else {
            chunk.iter().for_each(|c| self.receive_char(*c));
            self.flush_echoes();
        }
        // By lines, the end of one wakes.
        if !self.is_canonical() && !self.input.is_empty() {
            self.effects.wake_slave |= PollEvents::READABLE;
        }
    }

    /// Whether no setting gives any character a meaning (`ldata->raw`).
    fn is_raw(&self) -> bool {
        use InputFlags as I;
        let input = I::ISTRIP | I::IUCLC | I::IGNCR | I::ICRNL | I::INLCR | I::IXON | I::PARMRK;
        let local = LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::ECHO;
        self.termios.c_iflag & input.bits() == 0 && self.termios.c_lflag & local.bits() == 0
    }

    fn receive_char(&mut self, mut c: u8) {
        if self.iflag(InputFlags::ISTRIP) {
            c &= 0x7f;
        }
        if self.iflag(InputFlags::IUCLC) && self.local(LocalFlags::IEXTEN) {
            c = to_lower(c);
        }
        // It holds for one character, whatever that is.
        if std::mem::take(&mut self.literal_next) {
            self.receive_data(c);
        } else if self.local(LocalFlags::EXTPROC) {
            self.input.push(c);
        } else if self.is_special(c) {
            self.receive_special(c);
        } else {
            self.receive_data(c);
        }
    }

    /// Whether `c` means anything but itself (`ldata->char_map`).
    fn is_special(&self, c: u8) -> bool {
        let is = |index| self.is_cc(c, index);
        let local = |flag| self.local(flag);
        let extended = local(LocalFlags::IEXTEN);
        (c == b'\r' && (self.iflag(InputFlags::IGNCR) || self.iflag(InputFlags::ICRNL)))
            || (c == b'\n' && (self.iflag(InputFlags::INLCR) || local(LocalFlags::ICANON)))
            || (local(LocalFlags::ICANON)
                && (is(VERASE)
                    || is(VKILL)
                    || is(VEOF)
                    || is(VEOL)
                    || (extended
                        && (is(VWERASE) || is(VLNEXT) || is(VEOL2) || (local(LocalFlags::ECHO) && is(VREPRINT))))))
            || (self.iflag(InputFlags::IXON) && (is(VSTART) || is(VSTOP)))
            || (local(LocalFlags::ISIG) && (is(VINTR) || is(VQUIT) || is(VSUSP)))
    }

    /// A character that is data.
    fn receive_data(&mut self, c: u8) {
        self.restart_by_any();
        if self.local(LocalFlags::ECHO) {
            self.finish_erasing();
            self.echo_data(c);
            self.commit_echoes();
        }
        self.store(c);
    }

    fn receive_special(&mut self, mut c: u8) {
        if self.iflag(InputFlags::IXON) {
            if c == self.cc(VSTART) {
                self.start();
                self.process_echoes();
                return;
            }
            if c == self.cc(VSTOP) {
                self.stop();
                return;
            }
        }
        if self.local(LocalFlags::ISIG) {
            let signals = [(VINTR, Signal::SIGINT), (VQUIT, Signal::SIGQUIT), (VSUSP, Signal::SIGTSTP)];
            if let Some((_, signal)) = signals.into_iter().find(|(index, _)| self.is_cc(c, *index)) {
                self.receive_signal(c, signal);
                return;
            }
        }
        self.restart_by_any();
        if c == b'\r' {
            if self.iflag(InputFlags::IGNCR) {
                return;
            }
            if self.iflag(InputFlags::ICRNL) {
                c = b'\n';
            }
        } else if c == b'\n' && self.iflag(InputFlags::INLCR) {
            c = b'\r';
        }
        // After the translation: VEOL and its like are compared with what the program would read.
        if self.local(LocalFlags::ICANON) && self.receive_canonical(c) == Handled::Yes {
            return;
        }
        if self.local(LocalFlags::ECHO) {
            self.finish_erasing();
            if c == b'\n' {
                self.echo_raw(b'\n')
            } else {
                self.echo_data(c)
            }
            self.commit_echoes();
        }
        self.store(c);
    }

    /// INTR, QUIT or SUSP: drops input and waiting echoes (unless NOFLSH), and starts stopped output.
    fn receive_signal(&mut self, c: u8, signal: Signal) {
        self.effects.signals.insert(signal);
        // What was typed and printed before ^C is not wanted any more.
        if !self.local(LocalFlags::NOFLSH) {
            self.echo.clear();
            self.drop_output();
            self.drop_input();
        }
        if self.iflag(InputFlags::IXON) {
            self.start();
        }
        if self.local(LocalFlags::ECHO) {
            self.echo_char(c);
            self.commit_echoes();
        } else {
            self.process_echoes();
        }
    }

    /// The characters of canonical mode.
    fn receive_canonical(&mut self, c: u8) -> Handled {
        let extended = self.local(LocalFlags::IEXTEN);
        let echo = self.local(LocalFlags::ECHO);
        let erase = match c {
            _ if self.is_cc(c, VERASE) => Some(Erase::Char),
            _ if self.is_cc(c, VWERASE) && extended => Some(Erase::Word),
            _ if self.is_cc(c, VKILL) => Some(Erase::Line),
            _ => None,
        };
        if let Some(erase) = erase {
            self.erase(erase);
            self.commit_echoes();
        } else if self.is_cc(c, VLNEXT) && extended {
            self.receive_literal_next();
        } else if self.is_cc(c, VREPRINT) && echo && extended {
            self.reprint(c);
        } else if c == b'\n' {
            if echo || self.local(LocalFlags::ECHONL) {
                self.echo_raw(b'\n');
                self.commit_echoes();
            }
            self.end_line(b'\n');
        } else if self.is_cc(c, VEOF) {
            // Ends the line for the reader, who does not see the character itself.
            self.end_line(VDISABLE);
        } else if self.is_cc(c, VEOL) || (self.is_cc(c, VEOL2) && extended) {
            if echo {
                self.echo_data(c);
                self.commit_echoes();
            }
            // Doubled, as one alone begins a mark (PARMRK in termios(3)).
            if c == 0xff && self.iflag(InputFlags::PARMRK) {
                self.input.push(c);
            }
            self.end_line(c);
        } else {
            return Handled::No;
        }
        Handled::Yes
    }

    fn receive_literal_next(&mut self) {
        self.literal_next = true;
        if self.local(LocalFlags::ECHO) {
            self.finish_erasing();
            if self.local(LocalFlags::ECHOCTL) {
                // A `^` that the character will take the place of.
                self.echo_raw(b'^');
                self.echo_raw(b'\x08');
                self.commit_echoes();
            }
        }
    }

    /// Ends the edited line with `c`, which can then be read.
    fn end_line(&mut self, c: u8) {
        self.input.push_end(c);
        self.effects.wake_slave |= PollEvents::READABLE;
    }

    /// Echoes data, and notes the column at the start of a line.
    fn echo_data(&mut self, c: u8) {
        if self.input.line_is_empty() {
            self.echo_op(Echo::SetCanonColumn);
        }
        self.echo_char(c);
    }

    /// Stores a byte of data; PARMRK doubles 0xff.
    fn store(&mut self, c: u8) {
        if c == 0xff && self.iflag(InputFlags::PARMRK) {
            self.input.push(c);
        }
        self.input.push(c);
    }

    /// With IXANY any character starts stopped output.
    fn restart_by_any(&mut self) {
        if self.flow.is_stopped_by_character() && self.iflag(InputFlags::IXON) && self.iflag(InputFlags::IXANY) {
            self.start();
            self.process_echoes();
        }
    }
}
