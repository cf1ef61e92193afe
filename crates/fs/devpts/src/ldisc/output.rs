//! Output processing: `c_oflag` (`do_output_char` in Linux's `n_tty.c`).

use moat_abi::PollEvents;
use moat_abi::tty::{InputFlags, OutputFlags};

use super::chars::{is_control, to_upper};
use super::{LineDiscipline, OUTPUT_LIMIT};

impl LineDiscipline {
    /// Bytes that the output takes now: none while it is stopped.
    pub(super) fn output_room(&self) -> usize {
        if self.flow.is_stopped() { 0 } else { OUTPUT_LIMIT.saturating_sub(self.output.len()) }
    }

    /// Queues bytes for the master; the caller has made sure of the room.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
        self.effects.wake_master |= PollEvents::READABLE;
    }

    /// Whether `c` continues a character of several bytes (IUTF8).
    pub(super) fn is_continuation(&self, c: u8) -> bool {
        self.iflag(InputFlags::IUTF8) && c & 0xc0 == 0x80
    }

    /// Writes what the output has room for; gives how much of `data` that was.
    pub(super) fn write_output(&mut self, data: &[u8]) -> usize {
        if self.oflag(OutputFlags::OPOST) {
            return data.iter().take_while(|c| self.process_output(**c)).count();
        }
        let n = data.len().min(self.output_room());
        if n > 0 {
            self.put(&data[..n]);
        }
        n
    }

    /// Writes one byte with OPOST; false if the output has no room for all that it becomes.
    pub(super) fn process_output(&mut self, c: u8) -> bool {
        let room = self.output_room();
        if room == 0 {
            return false;
        }
        match c {
            b'\n' => {
                if self.oflag(OutputFlags::ONLRET) {
                    self.column = 0;
                }
                if self.oflag(OutputFlags::ONLCR) {
                    // Both or neither: a lone carriage return would stay if the terminal were stopped there.
                    if room < 2 {
                        return false;
                    }
                    (self.column, self.canon_column) = (0, 0);
                    self.put(b"\r\n");
                    return true;
                }
                self.canon_column = self.column;
                self.put(b"\n");
            }
            b'\r' => return self.process_return(),
            b'\t' => {
                // Tabs stand at every eighth column, whoever expands them.
                let spaces = 8 - (self.column & 7);
                let expand = self.termios.c_oflag & OutputFlags::TABDLY.bits() == OutputFlags::XTABS.bits();
                if expand && room < spaces as usize {
                    return false;
                }
                self.column = self.column.wrapping_add(spaces);
                if expand { self.put(&b"        "[..spaces as usize]) } else { self.put(b"\t") }
            }
            b'\x08' => {
                self.column = self.column.saturating_sub(1);
                self.put(b"\x08");
            }
            _ => self.process_other(c),
        }
        true
    }

    fn process_return(&mut self) -> bool {
        // Taken, and nothing comes of it.
        if self.oflag(OutputFlags::ONOCR) && self.column == 0 {
            return true;
        }
        if self.oflag(OutputFlags::OCRNL) {
            if self.oflag(OutputFlags::ONLRET) {
                (self.column, self.canon_column) = (0, 0);
            }
            self.put(b"\n");
        } else {
            (self.column, self.canon_column) = (0, 0);
            self.put(b"\r");
        }
        true
    }

    fn process_other(&mut self, mut c: u8) {
        if !is_control(c) {
            if self.oflag(OutputFlags::OLCUC) {
                c = to_upper(c);
            }
            // One column for a character, not for a byte.
            if !self.is_continuation(c) {
                self.column = self.column.wrapping_add(1);
            }
        }
        self.put(&[c]);
    }
}
