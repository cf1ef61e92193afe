//! Waiting for what the host tells nobody of: it is asked again and again.

use std::time::Duration;

use moat_kernel::{CurrentTask, Deadline, SyscallError, Wait};

/// The pauses between one look and the next: doubled each time, so that what takes long costs little.
pub(crate) struct Pauses {
    next: Duration,
}

/// The longest.
const LONGEST: Duration = Duration::from_millis(32);

impl Pauses {
    pub(crate) fn new() -> Pauses {
        Pauses { next: Duration::from_millis(1) }
    }

    /// Sleeps until the next look is due.
    ///
    /// # Errors
    /// The interruption by a signal, as `wait` has it.
    pub(crate) async fn pass(&mut self, t: &mut CurrentTask, wait: &Wait) -> Result<(), SyscallError> {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        t.sleep(&wait.until(Some(Deadline::now() + pause))).await
    }
}
