//! Pseudo-terminals, and whose terminals they are.

use serde::{Deserialize, Serialize};

use super::index::ContainerIndex;
use crate::refs::{Named, Ref};

/// A pseudo-terminal. Its openings are open files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtyState {
    /// Its number in its devpts.
    pub index: u32,
    /// Permissions of the slave's node.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its owning group.
    pub gid: u32,
    /// Seconds and nanoseconds of its last access, modification and change.
    pub times: [(i64, i64); 3],
    /// TIOCSPTLCK.
    pub locked: bool,
    /// TIOCEXCL.
    pub exclusive: bool,
    /// Rows, columns, and both in pixels.
    pub winsize: [u16; 4],
    /// The master is open: else the name is gone.
    pub master_open: bool,
    /// A slave has been open and none is.
    pub slave_gone: bool,
    /// Hang-ups: a description of the slave from before the last one is dead.
    pub hang_ups: u64,
    /// What is between the two.
    pub ldisc: LineDisciplineState,
}

/// The line discipline of a terminal: N_TTY.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineDisciplineState {
    /// Input, output, control and local modes.
    pub modes: [u32; 4],
    /// The line discipline's number.
    pub line: u8,
    /// Control characters.
    #[serde(with = "serde_bytes")]
    pub control: Vec<u8>,
    /// Speeds of input and output.
    pub speeds: (u32, u32),
    /// What the slave can read, or is being edited.
    #[serde(with = "serde_bytes")]
    pub input: Vec<u8>,
    /// Places in it that end a line.
    pub ends: Vec<u32>,
    /// Where finished lines end: so many bytes behind the start of `input`, or before it.
    pub finished: i64,
    /// What was written to the master and not processed.
    #[serde(with = "serde_bytes")]
    pub pending: Vec<u8>,
    /// What the master can read.
    #[serde(with = "serde_bytes")]
    pub output: Vec<u8>,
    /// So much of it can't be flushed any more.
    pub arrived: u32,
    /// Echoes that have not reached the output.
    pub echoes: Vec<EchoState>,
    /// How many of them are complete.
    pub echoes_marked: u32,
    /// The weight that was let out and is still there.
    pub echoes_committed: u32,
    /// The cursor's column.
    pub column: u32,
    /// That of the start of the line that is being edited.
    pub canon_column: u32,
    /// The next character is taken literally.
    pub literal_next: bool,
    /// Erased characters are being shown.
    pub erasing: bool,
    /// Output is stopped; by TCXONC.
    pub stopped: (bool, bool),
    /// TIOCPKT, and the status that was not read.
    pub packet: Option<u8>,
}

/// Something to echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "those of the line discipline")]
pub enum EchoState {
    Byte(u8),
    Escape,
    Control(u8),
    SetCanonColumn,
    MoveBack,
    EraseTab { columns: u8, from_line_start: bool },
}

/// A terminal of the host: its lines are the host's, whose other end is not in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTerminalState {
    /// It is the container's console, which is given anew. Others are gone after a restore, as if somebody had hung them up.
    pub console: bool,
    /// Whose console.
    #[serde(default)]
    pub container: ContainerIndex,
    /// Input, output, control and local modes.
    pub modes: [u32; 4],
    /// The line discipline's number.
    pub line: u8,
    /// Control characters.
    #[serde(with = "serde_bytes")]
    pub control: Vec<u8>,
    /// Speeds of input and output.
    pub speeds: (u32, u32),
    /// Rows, columns, and both in pixels.
    pub winsize: [u16; 4],
}

/// A terminal of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TerminalRef {
    /// A pseudo-terminal of the sandbox.
    Pty(Ref<PtyState>),
    /// One of the host.
    Host {
        /// Which one.
        host: Ref<HostTerminalState>,
    },
}

/// The terminal of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllingTerminalState {
    /// Which one.
    pub terminal: TerminalRef,
    /// The foreground process group.
    pub foreground: ForegroundState,
}

/// Who is in the foreground.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForegroundState {
    /// Nobody was named.
    None,
    /// The group of this number.
    Group(i32),
    /// A group that is gone.
    Gone,
}

impl Named for HostTerminalState {
    const WHAT: &'static str = "terminal";
}

impl Named for PtyState {
    const WHAT: &'static str = "pseudo-terminal";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through_cbor<T: for<'de> Deserialize<'de>>(value: &impl Serialize) -> T {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).unwrap();
        ciborium::from_reader(bytes.as_slice()).unwrap()
    }

    /// Schema 1 had pseudo-terminals only, by their number alone.
    #[test]
    fn a_number_is_a_pseudo_terminal() {
        #[derive(Serialize)]
        struct Before {
            terminal: u32,
            foreground: ForegroundState,
        }
        let now: ControllingTerminalState = through_cbor(&Before { terminal: 0, foreground: ForegroundState::None });
        assert_eq!(now.terminal, TerminalRef::Pty(Ref::FIRST));
        let host = ControllingTerminalState { terminal: TerminalRef::Host { host: Ref::FIRST }, ..now };
        assert_eq!(through_cbor::<ControllingTerminalState>(&host), host);
        assert_eq!(through_cbor::<ControllingTerminalState>(&now), now);
    }
}
