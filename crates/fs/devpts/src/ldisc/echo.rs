//! [`EchoQueue`]: echoes on their way to the output.
//!
//! Echoes wait until the input that came with them has been processed, while output is stopped (^S), and while the
//! master does not read. A signal character drops those that wait. The number of bytes that Linux's encoding takes
//! decides when a batch goes out, so the queue counts in it.

use std::collections::VecDeque;

use moat_abi::tty::{LocalFlags, OutputFlags};
use moat_image::state::EchoState;

use super::LineDiscipline;
use super::chars::is_control;

/// A batch of at least so many encoded bytes goes out at once (`ECHO_COMMIT_WATERMARK`).
const COMMIT_WATERMARK: usize = 256;
/// Bytes by which batches are counted (`ECHO_BLOCK`).
const BLOCK: usize = 256;
/// Encoded bytes that may wait; more are dropped from the front (`ECHO_DISCARD_WATERMARK`).
const DISCARD_WATERMARK: usize = 4096 - (BLOCK + 32);
/// Encoded bytes that are queued at all.
const LIMIT: usize = 4096;

/// One thing to echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// A byte through output processing.
    Byte(u8),
    /// The byte 0xff, which bypasses output processing.
    Escape,
    /// A control character as `^X`.
    Control(u8),
    /// The line that is being edited starts at the present column.
    SetCanonColumn,
    /// The cursor is one column further to the left than the bytes say.
    MoveBack,
    /// Backspaces over a tab.
    EraseTab {
        /// Columns, modulo 8, used since the tab stop or start that is counted from.
        columns: u8,
        /// Where they are counted from.
        from: TabOrigin,
    },
}

/// Where the columns before an erased tab are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TabOrigin {
    /// The start of the edited line.
    LineStart,
    /// The tab before.
    Tab,
}

impl Echo {
    fn save(self) -> EchoState {
        match self {
            Echo::Byte(c) => EchoState::Byte(c),
            Echo::Escape => EchoState::Escape,
            Echo::Control(c) => EchoState::Control(c),
            Echo::SetCanonColumn => EchoState::SetCanonColumn,
            Echo::MoveBack => EchoState::MoveBack,
            Echo::EraseTab { columns, from } => {
                EchoState::EraseTab { columns, from_line_start: from == TabOrigin::LineStart }
            }
        }
    }

    fn of(saved: EchoState) -> Echo {
        match saved {
            EchoState::Byte(c) => Echo::Byte(c),
            EchoState::Escape => Echo::Escape,
            EchoState::Control(c) => Echo::Control(c),
            EchoState::SetCanonColumn => Echo::SetCanonColumn,
            EchoState::MoveBack => Echo::MoveBack,
            EchoState::EraseTab { columns, from_line_start } => {
                let from = if from_line_start { TabOrigin::LineStart } else { TabOrigin::Tab };
                Echo::EraseTab { columns, from }
            }
        }
    }

    /// Bytes in Linux's encoding.
    fn weight(self) -> usize {
        match self {
            Echo::Byte(_) => 1,
            Echo::EraseTab { .. } => 3,
            _ => 2,
        }
    }
}

/// Echoes that have not reached the output.
#[derive(Clone, Debug, Default)]
pub struct EchoQueue {
    queue: VecDeque<Echo>,
    /// The sum of the weights in `queue`.
    weight: usize,
    /// How many of the first echoes are complete and may go out at the next occasion (`echo_mark`).
    marked: usize,
    /// The weight that was let out and is still here (`echo_commit - echo_tail`).
    committed_weight: usize,
}

impl EchoQueue {
    fn push(&mut self, echo: Echo) {
        // What is too much is lost, as on Linux.
        if self.weight + echo.weight() <= LIMIT {
            self.weight += echo.weight();
            self.queue.push_back(echo);
        }
    }

    fn pop(&mut self) {
        if let Some(echo) = self.queue.pop_front() {
            self.weight -= echo.weight();
            self.marked = self.marked.saturating_sub(1);
            self.committed_weight = self.committed_weight.saturating_sub(echo.weight());
        }
    }

    /// What is in it, how much of it is complete, and the weight that was let out.
    pub(super) fn save(&self) -> (Vec<EchoState>, usize, usize) {
        (self.queue.iter().map(|echo| echo.save()).collect(), self.marked, self.committed_weight)
    }

    /// The same out of an image; none if that is none.
    pub(super) fn restore(saved: &[EchoState], marked: u32, committed: u32) -> Option<EchoQueue> {
        let queue: VecDeque<Echo> = saved.iter().map(|echo| Echo::of(*echo)).collect();
        // Each has a weight of its own, so the sum bounds their number, too.
        let weight = queue.iter().map(|echo| echo.weight()).fold(0, usize::saturating_add);
        let marked = usize::try_from(marked).ok().filter(|n| *n <= queue.len())?;
        let committed_weight = usize::try_from(committed).ok().filter(|n| *n <= weight)?;
        (weight <= LIMIT).then_some(EchoQueue { queue, weight, marked, committed_weight })
    }

    pub(super) fn clear(&mut self) {
        *self = EchoQueue::default();
    }
}

impl LineDiscipline {
    /// Echoes `c` as it would be shown.
    pub(super) fn echo_char(&mut self, c: u8) {
        let echo = if c == 0xff {
            Echo::Escape
        } else if self.local(LocalFlags::ECHOCTL) && is_control(c) && c != b'\t' {
            Echo::Control(c)
        } else {
            Echo::Byte(c)
        };
        self.echo.push(echo);
    }

    /// Echoes `c` itself.
    pub(super) fn echo_raw(&mut self, c: u8) {
        self.echo.push(if c == 0xff { Echo::Escape } else { Echo::Byte(c) });
    }

    pub(super) fn echo_op(&mut self, echo: Echo) {
        self.echo.push(echo);
    }

    /// What is queued is complete; it goes out now if it is much (`commit_echoes`).
    pub(super) fn commit_echoes(&mut self) {
        self.echo.marked = self.echo.queue.len();
        let (new, old) = (self.echo.weight, self.echo.committed_weight);
        // Once for each block that is filled, not for each echo.
        if new >= COMMIT_WATERMARK && new % BLOCK <= old % BLOCK {
            self.emit_echoes(self.echo.marked);
        }
    }

    /// Lets out what is complete (`process_echoes`).
    pub(super) fn process_echoes(&mut self) {
        if self.echo.marked > 0 {
            self.emit_echoes(self.echo.marked);
        }
    }

    /// Lets out everything at the end of a batch of input (`flush_echoes`).
    pub(super) fn flush_echoes(&mut self) {
        if self.local(LocalFlags::ECHO) || self.local(LocalFlags::ECHONL) {
            self.emit_echoes(self.echo.queue.len());
        }
    }

    /// Emits up to the first `count` echoes, as far as the output has room.
    fn emit_echoes(&mut self, count: usize) {
        let before = self.echo.queue.len();
        while before - self.echo.queue.len() < count {
            let Some(echo) = self.echo.queue.front().copied() else { break };
            if !self.emit(echo) {
                break;
            }
            self.echo.pop();
        }
        let rest = count - (before - self.echo.queue.len());
        // By what is behind them, which is one character's: what waits may be thousands.
        let behind: usize = self.echo.queue.range(rest..).map(|e| e.weight()).sum();
        self.echo.committed_weight = self.echo.weight.saturating_sub(behind);
        while self.echo.committed_weight >= DISCARD_WATERMARK {
            self.echo.pop();
        }
    }

    /// Emits one echo; false if the output has no room for all of it.
    fn emit(&mut self, echo: Echo) -> bool {
        let room = self.output_room();
        match echo {
            Echo::Byte(c) if self.oflag(OutputFlags::OPOST) => return self.process_output(c),
            Echo::Byte(c) => {
                if room == 0 {
                    return false;
                }
                self.put(&[c]);
            }
            Echo::Escape => {
                if room == 0 {
                    return false;
                }
                self.put(&[0xff]);
                self.column = self.column.wrapping_add(1);
            }
            Echo::Control(c) => {
                if room < 2 {
                    return false;
                }
                // DEL is shown as `^?`, as far off as all others.
                self.put(&[b'^', c ^ 0o100]);
                self.column = self.column.wrapping_add(2);
            }
            Echo::SetCanonColumn => self.canon_column = self.column,
            Echo::MoveBack => self.column = self.column.saturating_sub(1),
            Echo::EraseTab { columns, from } => {
                // Without a tab before, columns count from where the line starts on the screen.
                let start = if from == TabOrigin::LineStart { self.canon_column } else { 0 };
                let backspaces = 8 - (u32::from(columns).wrapping_add(start) & 7);
                if room < backspaces as usize {
                    return false;
                }
                for _ in 0..backspaces {
                    self.put(b"\x08");
                    self.column = self.column.saturating_sub(1);
                }
            }
        }
        true
    }
}
