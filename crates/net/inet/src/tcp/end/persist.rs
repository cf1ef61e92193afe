//! Ends of connections in an image, and out of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_image::state::TcpEndState;
use moat_image::{Met, Ref};
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::SocketCore;

use super::{SHUT_READ, SHUT_WRITE, TcpEnd};

impl TcpEnd {
    /// Its name in the image.
    pub(crate) fn saved_as(self: &Arc<Self>, saver: &mut dyn SaveFiles) -> Ref<TcpEndState> {
        match saver.tcp_ends().meet(Arc::as_ptr(self).addr()) {
            Met::Before(name) => name,
            Met::First(name) => {
                let state = self.save(saver.pages().is_some());
                saver.tcp_ends().fill(name, state);
                name
            }
        }
    }

    fn save(&self, with_data: bool) -> TcpEndState {
        let inbox = self.inbox.lock();
        let mut bytes = vec![0; if with_data { inbox.bytes.len() } else { 0 }];
        inbox.bytes.peek(&mut bytes, 0);
        TcpEndState {
            core: self.core.save(),
            shutdown: self.shutdown_bits(),
            reset: self.is_reset(),
            bytes,
            urgent: inbox.urgent,
            starved: inbox.starved.then(|| u64::try_from(inbox.limit).unwrap_or(u64::MAX)),
        }
    }

    /// One out of an image, with nothing in its queue.
    pub(crate) fn restored(core: SocketCore, saved: &TcpEndState) -> Arc<TcpEnd> {
        let end = TcpEnd::new(core);
        end.shutdown.store(saved.shutdown & (SHUT_READ | SHUT_WRITE), Ordering::Release);
        end.reset.store(saved.reset, Ordering::Release);
        end
    }

    /// Puts back what `sender` has sent. Nobody is woken: who waits looks first.
    pub(crate) fn put_back(&self, sender: &TcpEnd, saved: &TcpEndState) {
        let mut inbox = self.inbox.lock();
        inbox.charge(sender, saved.bytes.len());
        inbox.bytes.push(&saved.bytes);
        inbox.urgent = saved.urgent;
        inbox.starved = saved.starved.is_some();
        inbox.limit = saved.starved.and_then(|limit| usize::try_from(limit).ok()).unwrap_or_default();
    }

    /// Ends one whose socket is gone: what comes is answered by a reset.
    pub(crate) fn end_restored(&self) {
        self.inbox.lock().closed = true;
    }
}
