//! [`ExitStatus`]: how the guest's init ended, and the pipe that says it.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By exit(2), with this code, 0 to 255.
    Exited(u8),
    /// By this signal.
    Signaled {
        /// 1 to 64.
        signal: u8,
        /// It would have left a core file.
        core_dumped: bool,
    },
}

impl ExitStatus {
    /// The status word of wait(2).
    #[must_use]
    pub fn to_wait_status(self) -> u32 {
        match self {
            ExitStatus::Exited(code) => u32::from(code) << 8,
            ExitStatus::Signaled { signal, core_dumped } => {
                u32::from(signal & 0x7f) | if core_dumped { 0x80 } else { 0 }
            }
        }
    }

    /// The inverse of [`ExitStatus::to_wait_status`]; `None` for a word that is no end of a process.
    #[must_use]
    pub fn from_wait_status(word: u32) -> Option<Self> {
        let [low, high, rest @ ..] = word.to_le_bytes();
        // As wait(2) has it: signal and core flag below, the exit code above. Anything else is no end of a process.
        match (low & 0x7f, low & 0x80, rest) {
            (0, 0, [0, 0]) => Some(ExitStatus::Exited(high)),
            (signal @ 1..=64, core, [0, 0]) if high == 0 => {
                Some(ExitStatus::Signaled { signal, core_dumped: core != 0 })
            }
            _ => None,
        }
    }

    /// What a shell makes of it: the code, or 128 plus the signal.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        match self {
            ExitStatus::Exited(code) => code,
            ExitStatus::Signaled { signal, .. } => 128u8.saturating_add(signal),
        }
    }

    /// Writes the status to the status pipe.
    ///
    /// # Errors
    /// EPIPE if nobody waits.
    pub fn write_to(self, mut pipe: impl Write) -> io::Result<()> {
        pipe.write_all(&self.to_wait_status().to_le_bytes())
    }

    /// Reads the status from the status pipe; `None` if the sandbox ended without saying one.
    ///
    /// # Errors
    /// Of the read, or InvalidData.
    pub fn read_from(mut pipe: impl Read) -> io::Result<Option<Self>> {
        let mut word = [0; 4];
        match pipe.read_exact(&mut word) {
            Ok(()) => Self::from_wait_status(u32::from_le_bytes(word))
                .map(Some)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed exit status")),
            // It died before it had written all of it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_status_round_trip() {
        for status in [
            ExitStatus::Exited(0),
            ExitStatus::Exited(255),
            ExitStatus::Signaled { signal: 9, core_dumped: false },
            ExitStatus::Signaled { signal: 11, core_dumped: true },
            ExitStatus::Signaled { signal: 64, core_dumped: false },
        ] {
            assert_eq!(ExitStatus::from_wait_status(status.to_wait_status()), Some(status));
        }
        for bad in [0x7f, 0x137f, 0xffff, 0x10000, u32::MAX] {
            assert_eq!(ExitStatus::from_wait_status(bad), None, "{bad:#x}");
        }
    }

    #[test]
    fn pipe_round_trip_and_eof() {
        let mut bytes = Vec::new();
        ExitStatus::Exited(3).write_to(&mut bytes).unwrap();
        assert_eq!(ExitStatus::read_from(&bytes[..]).unwrap(), Some(ExitStatus::Exited(3)));
        assert_eq!(ExitStatus::read_from(&bytes[..2]).unwrap(), None);
        assert!(ExitStatus::read_from(&[0xff; 4][..]).is_err());
    }
}
