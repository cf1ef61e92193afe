//! The extended state of a thread that has a frame: it lies there, in the thread's area.

use moat_abi::{Errno, Result};

use crate::frame::{EXTENDED_SIZE, MAGIC1};
use crate::thread::Thread;

impl Thread {
    /// A copy of it, if it says of itself what the host's frames say.
    ///
    /// # Errors
    /// EFAULT if not, or if there is no frame; ESRCH.
    pub(super) fn read_extended(&mut self) -> Result<Vec<u8>> {
        if self.host.is_dead() {
            return Err(Errno::ESRCH);
        }
        if self.entry.at_call() {
            return Err(Errno::EFAULT);
        }
        // What a handler is to find is taken from there.
        self.settle_handler();
        let (at, len) = (self.host.core.frame.fpstate, self.host.core.frame.fp_len);
        // One copy, which is then checked: the guest may go on writing to its area.
        let image = self.host.area.read_bytes(at, len);
        let word =
            |at: u64| image.get(at as usize..at as usize + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        if word(EXTENDED_SIZE - 4) == Some(MAGIC1) && word(EXTENDED_SIZE) == u32::try_from(len).ok() {
            Ok(image)
        } else {
            Err(Errno::EFAULT)
        }
    }

    /// Replaces it.
    ///
    /// # Errors
    /// EINVAL for an image of another size, or if there is no frame.
    pub(super) fn write_extended(&mut self, image: &[u8]) -> Result<()> {
        // A call from a rewritten site has no frame to put it in; whoever asks has one made first (`poll_whole`).
        if u64::try_from(image.len()) != Ok(self.host.core.frame.fp_len) || self.entry.at_call() {
            return Err(Errno::EINVAL);
        }
        self.settle_handler();
        self.host.area.write_bytes(self.host.core.frame.fpstate, image);
        Ok(())
    }

    /// Makes it that of a fresh program.
    pub(super) fn reset_extended(&mut self) {
        self.settle_handler();
        self.host.area.write_bytes(self.host.core.frame.fpstate, &self.host.core.fresh_fpu);
    }
}
