//! [`LineDiscipline`]: N_TTY between a pty's master and its slave, as a pure data structure.
//!
//! What is written to the master goes through input processing (editing, echo, signals) into the slave's input
//! buffer; what is written to the slave goes through output processing to the master's. Nothing here blocks,
//! allocates without a bound or knows a task: a call takes what fits and gives [`Effects`], from which the device
//! wakes readers and sends signals. Behaviour is that of Linux's `drivers/tty/n_tty.c` and `pty.c`, checked against a
//! native pty in `tests/native.rs`.
//!
//! - `input`: the state machine for input characters; `edit`: erase, kill and reprint in canonical mode.
//! - [`echo`]: the queue of echoes, which wait while output is stopped or full; `output`: output processing.
//! - [`buffer`]: the slave's input ring with its line ends; [`packet`]: packet mode (TIOCPKT), flushing and flow
//!   control.
//!
//! # Invariants
//! - Input never holds more than 4096 bytes, the queues before and after it no more than [`PENDING_LIMIT`] and
//!   [`OUTPUT_LIMIT`].
//! - All state is plain data, so that a checkpoint can write it down.

pub mod buffer;
mod chars;
pub mod echo;
mod edit;
mod input;
mod output;
pub mod packet;
mod persist;

use std::collections::VecDeque;

use moat_abi::tty::{ControlFlags, InputFlags, LocalFlags, OutputFlags, Termios2, VDISABLE, VEOF, VMIN, VTIME};
use moat_abi::{PollEvents, SigSet};

use buffer::InputBuffer;
use echo::EchoQueue;
use packet::Packet;

/// Bytes of output that wait for the master, at most. A native pty holds 13 to 20 KiB, depending on how they were
/// written.
pub const OUTPUT_LIMIT: usize = 16384;
/// Bytes written to the master that wait until the slave's input buffer has room, at most.
pub const PENDING_LIMIT: usize = 8192;
/// Bytes that the master's own buffer holds, at most.
const MASTER_BUFFER: usize = 4095;

/// What a call changed, for the device to act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Effects {
    /// To be sent to the terminal's foreground process group.
    pub signals: SigSet,
    /// Events to wake waiters of the slave with.
    pub wake_slave: PollEvents,
    /// Events to wake waiters of the master with.
    pub wake_master: PollEvents,
}

/// When a read of the slave is done: `c_cc[VMIN]` and `c_cc[VTIME]`, or one line in canonical mode (termios(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRule {
    /// As soon as anything is there (canonical mode and VMIN = 1, VTIME = 0).
    Any,
    /// With this many bytes or a full buffer.
    Minimum(u8),
    /// With this many bytes, or when this many tenths of a second have passed since the last byte; the first is
    /// waited for without limit.
    MinimumOrGap {
        /// VMIN.
        minimum: u8,
        /// VTIME.
        deciseconds: u8,
    },
    /// With anything, or with nothing after this many tenths of a second (0: at once, even if the descriptor would
    /// block).
    Timeout {
        /// VTIME.
        deciseconds: u8,
    },
}

/// The line discipline of one pty.
#[derive(Clone, Debug)]
pub struct LineDiscipline {
    termios: Termios2,
    /// What the slave reads.
    input: InputBuffer,
    /// What was written to the master and has not been processed, for want of room.
    pending: VecDeque<u8>,
    /// What the master reads.
    output: VecDeque<u8>,
    /// How much of `output` has reached the master's own buffer, where flushing the slave's output can't take it
    /// back: what calls before this one wrote.
    arrived: usize,
    echo: EchoQueue,
    /// The cursor's column, as far as output processing knows it.
    column: u32,
    /// The column where the line that is being edited starts.
    canon_column: u32,
    /// Whether the next input character is taken literally (VLNEXT).
    literal_next: bool,
    /// Whether erased characters are being shown between `\` and `/` (ECHOPRT).
    erasing: bool,
    flow: packet::FlowState,
    packet: Packet,
    effects: Effects,
}

impl LineDiscipline {
    /// A discipline in the state of a newly opened pty, with these settings.
    #[must_use]
    pub fn new(termios: Termios2) -> LineDiscipline {
        LineDiscipline {
            termios: normalise(termios),
            input: InputBuffer::new(),
            pending: VecDeque::new(),
            output: VecDeque::new(),
            arrived: 0,
            echo: EchoQueue::default(),
            column: 0,
            canon_column: 0,
            literal_next: false,
            erasing: false,
            flow: packet::FlowState::default(),
            packet: Packet::default(),
            effects: Effects::default(),
        }
    }

    /// The settings (TCGETS2).
    #[must_use]
    pub fn termios(&self) -> &Termios2 {
        &self.termios
    }

    /// Changes the settings (TCSETS2). TCSETSF flushes the input first, by [`LineDiscipline::flush`].
    pub fn set_termios(&mut self, new: Termios2) -> Effects {
        let old = std::mem::replace(&mut self.termios, normalise(new));
        self.packet.termios_changed(&old, &self.termios, &mut self.effects);
        // What is held is counted anew, as lines or as bytes.
        let mode = LocalFlags::ICANON | LocalFlags::EXTPROC;
        if (old.c_lflag ^ self.termios.c_lflag) & mode.bits() != 0 {
            self.input.change_mode(self.local(LocalFlags::ICANON));
            self.erasing = false;
            self.literal_next = false;
        }
        // Without IXON no character could ever start the output again.
        if !self.iflag(InputFlags::IXON) && old.c_iflag & InputFlags::IXON.bits() != 0 {
            self.start();
            self.process_echoes();
        }
        // Who waits may have enough by the new rules.
        self.effects.wake_slave |= PollEvents::READABLE | PollEvents::WRITABLE;
        self.finish()
    }

    /// Writes to the master: input for the slave. Gives how much was taken; 0 means that there is no room (EAGAIN).
    pub fn master_write(&mut self, data: &[u8]) -> (usize, Effects) {
        let mut taken = 0;
        while taken < data.len() {
            let room = PENDING_LIMIT - self.pending.len();
            if room == 0 {
                break;
            }
            // In pieces: where the input takes one, there is room for the next.
            let chunk = &data[taken..data.len().min(taken + room)];
            self.pending.extend(chunk);
            taken += chunk.len();
            self.pump();
        }
        (taken, self.finish())
    }

    /// Puts one byte into the slave's input as if it had been typed (TIOCSTI).
    pub fn inject(&mut self, byte: u8) -> Effects {
        self.receive(&[byte]);
        self.finish()
    }

    /// Reads from the slave. `None` means that nothing can be read (EAGAIN); 0 is an end of file (VEOF).
    ///
    /// In canonical mode it ends after a line; else it takes what there is, and [`LineDiscipline::read_rule`] says
    /// whether that is enough.
    pub fn slave_read(&mut self, buf: &mut [u8]) -> (Option<usize>, Effects) {
        if buf.is_empty() {
            return (Some(0), self.finish());
        }
        if !self.input_available(1) {
            return (None, self.finish());
        }
        let n = if self.is_canonical() {
            self.input.read_line(buf)
        } else {
            // With EXTPROC the master has edited, but a lone VEOF still ends the file.
            let eof = self.local(LocalFlags::ICANON).then(|| self.cc(VEOF));
            self.input.read_raw(buf, eof)
        };
        self.pump();
        // Input that moved on has left room.
        self.effects.wake_master |= PollEvents::WRITABLE;
        (Some(n), self.finish())
    }

    /// Reads from the master. `None` means that nothing can be read (EAGAIN).
    ///
    /// In packet mode the first byte is the status (TIOCPKT_*).
    pub fn master_read(&mut self, buf: &mut [u8]) -> (Option<usize>, Effects) {
        if buf.is_empty() {
            return (Some(0), self.finish());
        }
        let before = self.output.len();
        let n = self.packet.read(&mut self.output, buf);
        // What was read was the first of it.
        self.arrived = self.arrived.saturating_sub(before - self.output.len());
        if n.is_some() {
            self.effects.wake_slave |= PollEvents::WRITABLE;
        }
        (n, self.finish())
    }

    /// Writes to the slave. Gives how much was taken; less than all means that the output is full or stopped (EAGAIN
    /// if 0).
    pub fn slave_write(&mut self, data: &[u8]) -> (usize, Effects) {
        self.process_echoes();
        let n = self.write_output(data);
        (n, self.finish())
    }

    /// What the slave is ready for, without the hang-up that the device knows of.
    #[must_use]
    pub fn slave_poll(&self) -> PollEvents {
        let (min, time) = (self.cc(VMIN), self.cc(VTIME));
        // VMIN counts only where no timer would end the read (`n_tty_poll`).
        let wanted = if time == 0 && min != 0 { usize::from(min) } else { 1 };
        let mut events = PollEvents::empty();
        if self.input_available(wanted) {
            events |= PollEvents::READ_READY;
        }
        if self.output_room() > 0 {
            events |= PollEvents::WRITE_READY;
        }
        events
    }

    /// What the master is ready for, without the hang-up that the device knows of.
    #[must_use]
    pub fn master_poll(&self) -> PollEvents {
        let mut events = PollEvents::empty();
        if !self.output.is_empty() {
            events |= PollEvents::READ_READY;
        }
        if self.packet.has_status() {
            events |= PollEvents::READ_READY | PollEvents::PRI;
        }
        if self.pending.len() < PENDING_LIMIT {
            events |= PollEvents::WRITE_READY;
        }
        events
    }

    /// When a read of the slave has enough.
    #[must_use]
    pub fn read_rule(&self) -> ReadRule {
        if self.local(LocalFlags::ICANON) {
            return ReadRule::Any;
        }
        match (self.cc(VMIN), self.cc(VTIME)) {
            (0, deciseconds) => ReadRule::Timeout { deciseconds },
            (1, 0) => ReadRule::Any,
            (minimum, 0) => ReadRule::Minimum(minimum),
            (minimum, deciseconds) => ReadRule::MinimumOrGap { minimum, deciseconds },
        }
    }

    /// Bytes that the slave can read (FIONREAD on the slave).
    #[must_use]
    pub fn slave_bytes(&self) -> usize {
        if self.is_canonical() { self.input.line_bytes() } else { self.input.len() }
    }

    /// Bytes that the master can read (FIONREAD on the master).
    #[must_use]
    pub fn master_bytes(&self) -> usize {
        self.output.len().min(MASTER_BUFFER)
    }

    /// Whether input is read by lines. With EXTPROC the master does the editing.
    fn is_canonical(&self) -> bool {
        self.local(LocalFlags::ICANON) && !self.local(LocalFlags::EXTPROC)
    }

    fn input_available(&self, wanted: usize) -> bool {
        if self.is_canonical() { self.input.has_line() } else { self.input.len() >= wanted }
    }

    /// Processes what was written to the master, as far as the input buffer has room.
    fn pump(&mut self) {
        // Taken out while `receive` has the whole discipline.
        let mut pending = std::mem::take(&mut self.pending);
        let n = self.receive(pending.make_contiguous());
        pending.drain(..n);
        self.pending = pending;
    }

    /// The effects gathered since the last call.
    fn finish(&mut self) -> Effects {
        self.arrived = self.output.len().min(MASTER_BUFFER);
        std::mem::take(&mut self.effects)
    }

    fn iflag(&self, flag: InputFlags) -> bool {
        self.termios.c_iflag & flag.bits() != 0
    }

    fn oflag(&self, flag: OutputFlags) -> bool {
        self.termios.c_oflag & flag.bits() != 0
    }

    fn local(&self, flag: LocalFlags) -> bool {
        self.termios.c_lflag & flag.bits() != 0
    }

    /// The control character at `index` of `c_cc`.
    fn cc(&self, index: usize) -> u8 {
        self.termios.c_cc[index]
    }

    /// Whether `c` is the control character at `index`; one that is switched off matches nothing.
    fn is_cc(&self, c: u8, index: usize) -> bool {
        c != VDISABLE && c == self.cc(index)
    }
}

/// A pty has 8 bits, no parity and a receiver (`pty_set_termios`), and speeds as its flags say.
fn normalise(mut t: Termios2) -> Termios2 {
    t.c_cflag &= !(ControlFlags::CS8 | ControlFlags::PARENB).bits();
    t.c_cflag |= (ControlFlags::CS8 | ControlFlags::CREAD).bits();
    t.with_speeds()
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::Signal;
    use moat_abi::tty::{TIOCPKT_FLUSHREAD, TIOCPKT_FLUSHWRITE, TIOCPKT_STOP};
    use packet::PacketMode;

    fn cooked() -> LineDiscipline {
        LineDiscipline::new(Termios2::pty_default())
    }

    fn with(change: impl FnOnce(&mut Termios2)) -> LineDiscipline {
        let mut t = Termios2::pty_default();
        change(&mut t);
        LineDiscipline::new(t)
    }

    fn shown(tty: &mut LineDiscipline) -> Vec<u8> {
        let mut buf = vec![0; OUTPUT_LIMIT];
        let n = tty.master_read(&mut buf).0.unwrap_or(0);
        buf.truncate(n);
        buf
    }

    #[test]
    fn signal_characters_signal_and_flush() {
        let mut tty = cooked();
        let (n, effects) = tty.master_write(b"half a line\x03");
        assert_eq!((n, effects.signals), (12, Signal::SIGINT.bit()));
        assert_eq!(shown(&mut tty), b"^C");
        assert_eq!(tty.slave_read(&mut [0; 8]).0, None);
        let (_, effects) = tty.master_write(b"\x1a\x1c");
        assert_eq!(effects.signals, Signal::SIGTSTP.bit().union(Signal::SIGQUIT.bit()));
        let mut tty = with(|t| t.c_lflag &= !LocalFlags::ISIG.bits());
        assert!(tty.master_write(b"\x03").1.signals.is_empty());
    }

    #[test]
    fn a_line_wakes_the_reader_and_not_a_character() {
        let mut tty = cooked();
        assert!(!tty.master_write(b"x").1.wake_slave.intersects(PollEvents::IN));
        let (_, effects) = tty.master_write(b"\n");
        assert!(effects.wake_slave.contains(PollEvents::IN) && effects.wake_master.contains(PollEvents::IN));
        let mut buf = [0; 8];
        let (n, effects) = tty.slave_read(&mut buf);
        assert_eq!((n, &buf[..2]), (Some(2), &b"x\n"[..]));
        assert!(effects.wake_master.contains(PollEvents::OUT));
        assert_eq!(effects.signals, SigSet::EMPTY);
    }

    #[test]
    fn end_of_file_reads_as_nothing() {
        let mut tty = cooked();
        assert!(tty.master_write(b"\x04").1.wake_slave.contains(PollEvents::IN));
        assert!(tty.slave_poll().contains(PollEvents::IN));
        assert_eq!(tty.slave_read(&mut [0; 8]).0, Some(0));
        assert_eq!(tty.slave_read(&mut [0; 8]).0, None);
    }

    #[test]
    fn both_directions_are_bounded_and_go_on() {
        let mut tty = with(|t| (t.c_lflag, t.c_iflag, t.c_oflag) = (0, 0, 0));
        let big = vec![7; 1 << 17];
        let (taken, _) = tty.master_write(&big);
        assert_eq!(taken, PENDING_LIMIT + buffer::SIZE - 1);
        assert_eq!(tty.master_write(&big).0, 0);
        assert!(!tty.master_poll().contains(PollEvents::OUT));
        let (mut got, mut buf) = (0, vec![0; 1000]);
        while let Some(n) = tty.slave_read(&mut buf).0 {
            got += n;
        }
        assert_eq!(got, taken);
        assert_eq!(tty.slave_write(&big).0, OUTPUT_LIMIT);
        assert!(!tty.slave_poll().contains(PollEvents::OUT));
        let (n, effects) = tty.master_read(&mut buf);
        assert_eq!(n, Some(1000));
        assert!(effects.wake_slave.contains(PollEvents::OUT));
        assert_eq!(tty.slave_write(&big).0, 1000);
    }

    #[test]
    fn stopped_output_waits() {
        let mut tty = cooked();
        let _ = tty.master_write(b"\x13");
        assert!(tty.is_stopped());
        assert_eq!(tty.slave_write(b"hello").0, 0);
        let (_, effects) = tty.master_write(b"\x11");
        assert!(effects.wake_slave.contains(PollEvents::OUT));
        assert_eq!(tty.slave_write(b"hello").0, 5);
    }

    #[test]
    fn packet_mode_reports_what_happened() {
        let mut tty = cooked();
        tty.set_packet_mode(PacketMode::On);
        let _ = tty.slave_write(b"out");
        let _ = tty.master_write(b"\x13");
        assert!(tty.master_poll().contains(PollEvents::PRI));
        assert_eq!(shown(&mut tty), [TIOCPKT_STOP]);
        assert_eq!(shown(&mut tty), b"\0out");
        let _ = tty.master_write(b"\x03");
        let status = shown(&mut tty);
        assert_eq!(status[0] & (TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE), TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE);
    }

    #[test]
    fn read_rules_follow_vmin_and_vtime() {
        let rule = |min, time| {
            with(|t| {
                t.c_lflag &= !LocalFlags::ICANON.bits();
                (t.c_cc[VMIN], t.c_cc[VTIME]) = (min, time);
            })
            .read_rule()
        };
        assert_eq!(cooked().read_rule(), ReadRule::Any);
        assert_eq!(rule(1, 0), ReadRule::Any);
        assert_eq!(rule(5, 0), ReadRule::Minimum(5));
        assert_eq!(rule(5, 2), ReadRule::MinimumOrGap { minimum: 5, deciseconds: 2 });
        assert_eq!(rule(0, 0), ReadRule::Timeout { deciseconds: 0 });
    }

    #[test]
    fn injected_input_is_typed_input() {
        let mut tty = cooked();
        assert_eq!(tty.inject(3).signals, Signal::SIGINT.bit());
        assert_eq!(shown(&mut tty), b"^C");
    }

    proptest::proptest! {
        /// Whatever the settings and however full the buffers: no panic, and no queue beyond its bound.
        #[test]
        fn hostile_use_stays_within_bounds(
            flags in (0u32..1 << 16, 0u32..1 << 16, 0u32..1 << 17),
            steps in proptest::collection::vec((0u8..5, proptest::prelude::any::<[u8; 3]>(), 0usize..5000), 1..30),
        ) {
            let mut tty = LineDiscipline::new(Termios2::default());
            for (what, bytes, len) in steps {
                let data: Vec<u8> = bytes.iter().copied().cycle().take(len).collect();
                let mut buf = vec![0; len];
                match what {
                    0 => drop(tty.master_write(&data)),
                    1 => drop(tty.slave_write(&data)),
                    2 => drop(tty.slave_read(&mut buf)),
                    3 => drop(tty.master_read(&mut buf)),
                    _ => {
                        let mut t = *tty.termios();
                        (t.c_iflag, t.c_oflag) = (flags.0 ^ u32::from(bytes[0]), flags.1);
                        t.c_lflag = flags.2 ^ (u32::from(bytes[1]) & 2);
                        t.c_cc[..3].copy_from_slice(&bytes);
                        let _ = tty.set_termios(t);
                    }
                }
                assert!(tty.input.len() <= buffer::SIZE);
                assert!(tty.pending.len() <= PENDING_LIMIT && tty.output.len() <= OUTPUT_LIMIT);
                assert!(tty.slave_bytes() <= buffer::SIZE && tty.arrived <= tty.output.len());
            }
        }
    }
}
