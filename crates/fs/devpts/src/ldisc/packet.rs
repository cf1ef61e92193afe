//! Packet mode (TIOCPKT), flushing (TCFLSH) and flow control (TCXONC, ^S and ^Q): `pty.c` and `tty_ioctl.c` of Linux.

use std::collections::VecDeque;

use moat_abi::PollEvents;
use moat_abi::tty::{
    InputFlags, LocalFlags, TIOCPKT_DATA, TIOCPKT_DOSTOP, TIOCPKT_FLUSHREAD, TIOCPKT_FLUSHWRITE, TIOCPKT_IOCTL,
    TIOCPKT_NOSTOP, TIOCPKT_START, TIOCPKT_STOP, Termios2, VDISABLE, VSTART, VSTOP,
};

use super::{Effects, LineDiscipline, MASTER_BUFFER};

/// Packet mode of the master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketMode {
    /// Reads are data.
    #[default]
    Off,
    /// Reads start with a status byte.
    On,
}

/// What TCXONC asks of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowAction {
    /// TCOOFF: stops output; only TCOON starts it again.
    StopOutput,
    /// TCOON: starts output that TCOOFF stopped.
    StartOutput,
    /// TCIOFF: sends the STOP character to the other side.
    SendStop,
    /// TCION: sends the START character to the other side.
    SendStart,
}

/// Which queues TCFLSH flushes, seen from the slave (a flush on the master is the mirror image).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// TCIFLUSH: what the slave has not read.
    Input,
    /// TCOFLUSH: what the slave wrote and has not gone out.
    Output,
    /// TCIOFLUSH.
    Both,
}

/// Whether output is stopped, and by what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowState {
    stopped: bool,
    by_ioctl: bool,
}

impl FlowState {
    /// Whether it is stopped, and whether by TCXONC.
    pub(super) fn save(self) -> (bool, bool) {
        (self.stopped, self.by_ioctl)
    }

    pub(super) fn restore((stopped, by_ioctl): (bool, bool)) -> FlowState {
        FlowState { stopped, by_ioctl }
    }

    pub(super) fn is_stopped(self) -> bool {
        self.stopped
    }

    /// Stopped in a way that a character can end.
    pub(super) fn is_stopped_by_character(self) -> bool {
        self.stopped && !self.by_ioctl
    }
}

/// State of packet mode.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Packet {
    mode: PacketMode,
    /// TIOCPKT_* bits that the master has not read.
    status: u8,
}

impl Packet {
    /// The status that was not read, in packet mode.
    pub(super) fn save(self) -> Option<u8> {
        (self.mode == PacketMode::On).then_some(self.status)
    }

    pub(super) fn restore(saved: Option<u8>) -> Packet {
        let mode = if saved.is_some() { PacketMode::On } else { PacketMode::Off };
        Packet { mode, status: saved.unwrap_or_default() }
    }

    pub(super) fn has_status(&self) -> bool {
        self.mode == PacketMode::On && self.status != 0
    }

    /// Reads from the master's queue.
    pub(super) fn read(&mut self, output: &mut VecDeque<u8>, buf: &mut [u8]) -> Option<usize> {
        // A status comes alone and before data.
        if self.has_status() {
            let first = buf.first_mut()?;
            *first = std::mem::take(&mut self.status);
            return Some(1);
        }
        if output.is_empty() {
            return None;
        }
        let header = usize::from(self.mode == PacketMode::On);
        if header == 1 {
            *buf.first_mut()? = TIOCPKT_DATA;
        }
        let data = &mut buf[header..];
        // No more than Linux's buffer holds.
        let n = data.len().min(output.len()).min(MASTER_BUFFER);
        for (slot, c) in data.iter_mut().zip(output.drain(..n)) {
            *slot = c;
        }
        Some(header + n)
    }

    fn set(&mut self, clear: u8, set: u8, effects: &mut Effects) {
        if self.mode == PacketMode::On {
            self.status = (self.status & !clear) | set;
            effects.wake_master |= PollEvents::PRI | PollEvents::READABLE;
        }
    }

    /// Notes a change between the usual ^S/^Q flow control and none, and any change under EXTPROC.
    pub(super) fn termios_changed(&mut self, old: &Termios2, new: &Termios2, effects: &mut Effects) {
        let usual =
            |t: &Termios2| t.c_iflag & InputFlags::IXON.bits() != 0 && t.c_cc[VSTOP] == 0o23 && t.c_cc[VSTART] == 0o21;
        if usual(old) != usual(new) {
            let status = if usual(new) { TIOCPKT_DOSTOP } else { TIOCPKT_NOSTOP };
            self.set(TIOCPKT_DOSTOP | TIOCPKT_NOSTOP, status, effects);
        }
        if (old.c_lflag | new.c_lflag) & LocalFlags::EXTPROC.bits() != 0 {
            self.set(0, TIOCPKT_IOCTL, effects);
        }
    }
}

impl LineDiscipline {
    /// Packet mode (TIOCGPKT).
    #[must_use]
    pub fn packet_mode(&self) -> PacketMode {
        self.packet.mode
    }

    /// Switches packet mode (TIOCPKT on the master). Switching it on starts with a clean status.
    pub fn set_packet_mode(&mut self, mode: PacketMode) {
        if mode == PacketMode::On && self.packet.mode == PacketMode::Off {
            self.packet.status = 0;
        }
        self.packet.mode = mode;
    }

    /// Drops queued data (TCFLSH on the slave; before TCSETSF with [`Flush::Input`]).
    pub fn flush(&mut self, what: Flush) -> Effects {
        if what != Flush::Output {
            // Also what has not come as far as the input.
            self.pending.clear();
            self.drop_input();
            self.effects.wake_master |= PollEvents::WRITABLE;
        }
        if what != Flush::Input {
            self.drop_output();
        }
        self.finish()
    }

    /// Drops queued data as TCFLSH on the master does: its input is the slave's output.
    pub fn flush_master(&mut self, what: Flush) -> Effects {
        if what != Flush::Output {
            self.output.clear();
            self.arrived = 0;
            self.effects.wake_slave |= PollEvents::WRITABLE;
        }
        if what != Flush::Input {
            self.pending.clear();
            self.effects.wake_master |= PollEvents::WRITABLE;
        }
        self.finish()
    }

    /// Stops or starts the flow of data (TCXONC on the slave).
    pub fn control_flow(&mut self, action: FlowAction) -> Effects {
        match action {
            // A stop by ioctl and one by ^S count apart: each is undone by its own opposite.
            FlowAction::StopOutput if !self.flow.by_ioctl => {
                self.flow.by_ioctl = true;
                self.stop();
            }
            FlowAction::StartOutput if self.flow.by_ioctl => {
                self.flow.by_ioctl = false;
                self.start();
            }
            FlowAction::StopOutput | FlowAction::StartOutput => {}
            FlowAction::SendStop => self.send(self.cc(VSTOP)),
            FlowAction::SendStart => self.send(self.cc(VSTART)),
        }
        self.finish()
    }

    /// Whether output is stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.flow.is_stopped()
    }

    /// Sends a flow control character past output that a character stopped (`tty_send_xchar`); TCOOFF loses it.
    fn send(&mut self, c: u8) {
        if c == VDISABLE {
            return;
        }
        let was_stopped = self.flow.stopped;
        // For this one character. TCOOFF stays in force.
        self.start();
        if self.output_room() > 0 {
            self.put(&[c]);
        }
        if was_stopped {
            self.stop();
        }
    }

    pub(super) fn stop(&mut self) {
        if !self.flow.stopped {
            self.flow.stopped = true;
            self.packet.set(TIOCPKT_START, TIOCPKT_STOP, &mut self.effects);
        }
    }

    /// Starts output, unless TCOOFF stopped it.
    pub(super) fn start(&mut self) {
        if self.flow.stopped && !self.flow.by_ioctl {
            self.flow.stopped = false;
            self.packet.set(TIOCPKT_STOP, TIOCPKT_START, &mut self.effects);
            self.effects.wake_slave |= PollEvents::WRITABLE;
        }
    }

    /// Drops the slave's input, and tells the master of it.
    pub(super) fn drop_input(&mut self) {
        self.input.clear();
        self.erasing = false;
        self.packet.set(0, TIOCPKT_FLUSHREAD, &mut self.effects);
    }

    /// Drops the slave's output that has not reached the master's buffer, and tells the master of it.
    pub(super) fn drop_output(&mut self) {
        self.output.truncate(self.arrived);
        self.packet.set(0, TIOCPKT_FLUSHWRITE, &mut self.effects);
        self.effects.wake_slave |= PollEvents::WRITABLE;
    }
}
