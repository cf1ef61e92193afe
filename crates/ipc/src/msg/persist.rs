//! Message queues in an image, and out of it.

use std::sync::Arc;

use moat_image::ImageError;
use moat_image::state::{MsgQueueState, RegistryState};
use moat_sync::WaitQueue;

use super::{Message, Queue, Queues, len_u64};

impl Queues {
    /// All queues.
    #[must_use]
    pub fn save(&self) -> RegistryState<MsgQueueState> {
        self.registry.lock().save(|q| {
            Some(MsgQueueState {
                messages: q.messages.iter().map(|m| (m.kind, m.text.clone().into())).collect(),
                max_bytes: q.max_bytes,
                stime: q.stime,
                rtime: q.rtime,
                ctime: q.ctime,
                lspid: q.lspid,
                lrpid: q.lrpid,
            })
        })
    }

    /// Makes the queues of an image, of which there are none yet.
    ///
    /// # Errors
    /// A message of a type that msgsnd(2) refuses; ids that can't be.
    pub fn restore(&self, saved: &RegistryState<MsgQueueState>) -> Result<(), ImageError> {
        self.registry.lock().restore(saved, |saved| {
            let q = &saved.object;
            if q.messages.iter().any(|(kind, _)| *kind <= 0) {
                return Err(ImageError::state(format!("a message in queue {}", saved.id)));
            }
            let messages = q.messages.iter().map(|(kind, text)| Message { kind: *kind, text: text.to_vec() });
            // More than the limit may be in it, which may have been lowered since.
            let bytes = q.messages.iter().map(|(_, text)| len_u64(text)).fold(0, u64::saturating_add);
            let queue = Queue {
                messages: messages.collect(),
                bytes,
                max_bytes: q.max_bytes,
                stime: q.stime,
                rtime: q.rtime,
                ctime: q.ctime,
                lspid: q.lspid,
                lrpid: q.lrpid,
                waiters: Arc::new(WaitQueue::new()),
            };
            Ok((queue, 0))
        })
    }
}
