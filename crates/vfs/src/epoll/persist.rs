//! What an epoll instance watches, into an image and out of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::poll::{EpollEvent, EpollFlags};
use moat_image::state::{EpollItemState, OpenFileKind};
use moat_image::{ImageError, Refusal};

use super::Epoll;
use crate::fd_table::Fd;
use crate::open_file::OpenFile;
use crate::persist::SaveFiles;

impl Epoll {
    pub(super) fn save_items(&self, saver: &mut dyn SaveFiles) -> Result<OpenFileKind, Refusal> {
        let mut items: Vec<_> = self.items.lock().values().cloned().collect();
        items.sort_by_key(|item| item.fd.0);
        let mut saved = Vec::new();
        for item in items {
            // A file that is being closed takes its item along.
            let Some(file) = item.file.upgrade() else { continue };
            let watched = saver.open_file(&file).map_err(|refusal| refusal.at(format!("watched as {}", item.fd.0)))?;
            saved.push(EpollItemState {
                fd: item.fd.0,
                file: watched,
                events: item.events.load(Ordering::Relaxed),
                data: item.data.load(Ordering::Relaxed),
                spent: item.arming.is_off(),
                queued: item.queued.load(Ordering::Acquire),
            });
        }
        Ok(OpenFileKind::Epoll(saved))
    }

    /// Watches what was watched.
    ///
    /// # Errors
    /// What epoll_ctl(2) would not allow.
    pub fn put_item_back(&self, saved: &EpollItemState, file: &Arc<OpenFile>) -> Result<(), ImageError> {
        let wrong = |_| ImageError::state(format!("what an epoll watches as {}", saved.fd));
        let fd = Fd(saved.fd);
        self.add(fd, file, EpollEvent { events: saved.events, data: saved.data }).map_err(wrong)?;
        let item = self.find(fd, file).map_err(wrong)?;
        if saved.spent {
            let _ = item.arming.spend();
        }
        // An edge that was given before is no edge again.
        if item.has(EpollFlags::ET) && !saved.queued {
            let mut ready = self.ready.lock();
            ready.retain(|other| !Arc::ptr_eq(other, &item));
            item.queued.store(false, Ordering::Release);
        }
        Ok(())
    }
}
