//! [`Cork`]: bytes that are sent but held back until there is a whole segment of them (TCP_CORK).

use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_abi::PollEvents;

use super::{Inbox, Pushed, TcpEnd};
use crate::options::MSS;

/// How long bytes are held (tcp(7)).
const LONGEST: Duration = Duration::from_millis(200);

/// What a cork holds.
#[derive(Default)]
pub(super) struct Cork {
    /// Bytes at the queue's end that the receiver does not see yet.
    held: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Inbox {
    /// Bytes that the receiver sees.
    pub(super) fn visible(&self) -> usize {
        self.bytes.len().saturating_sub(self.cork.held)
    }
}

impl TcpEnd {
    /// Holds what is no whole segment of the `n` bytes just queued; gives whether the receiver sees nothing new.
    pub(super) fn hold(self: &Arc<Self>, inbox: &mut Inbox, n: usize, how: Pushed) -> bool {
        if how != Pushed::Corked {
            inbox.cork = Cork::default();
            return false;
        }
        let segment = usize::try_from(MSS).unwrap_or(usize::MAX);
        let all = inbox.cork.held.saturating_add(n);
        inbox.cork.held = all.checked_rem(segment).unwrap_or(0);
        if all >= segment {
            inbox.cork.since = None;
        }
        if inbox.cork.held != 0 && inbox.cork.since.is_none() {
            let now = Instant::now();
            inbox.cork.since = Some(now);
            let me = Arc::downgrade(self);
            moat_sync::spawn(async move {
                moat_sync::timer::sleep_until(now.checked_add(LONGEST).unwrap_or(now)).await;
                if let Some(end) = me.upgrade() {
                    end.uncork(Some(now));
                }
            });
        }
        all < segment
    }

    /// Lets the receiver see all that is held; with `since` only what has been held from that moment on.
    pub(crate) fn uncork(&self, since: Option<Instant>) {
        {
            let cork = &mut self.inbox.lock().cork;
            if cork.held == 0 || (since.is_some() && cork.since != since) {
                return;
            }
            *cork = Cork::default();
        }
        self.core.queue().wake(PollEvents::READ_READY);
        self.tell_first();
    }
}
