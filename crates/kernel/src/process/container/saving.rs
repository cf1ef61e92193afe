//! What a container's tasks do while it is saved: each says what only it knows (`crate::task::rest`), and the first of each address space
//! may have the host copy it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use moat_mm::MemoryManager;
use moat_platform::GuestThread;

use super::ContainerGroup;

/// What becomes of memory while a container is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveMemory {
    /// It stays as it is until all of it is written: the container stands still for as long.
    Still,
    /// The host makes a copy of each process (copy-on-write), so that the container can go on.
    Copied,
}

/// A copy of an address space, in a host process that runs nothing.
pub struct MemoryCopy {
    of: u64,
    made: Option<(Arc<MemoryManager>, Box<dyn GuestThread>)>,
}

impl MemoryCopy {
    /// The copy, if it is one of `memory` and could be made.
    #[must_use]
    pub fn of(&self, memory: &MemoryManager) -> Option<&Arc<MemoryManager>> {
        self.made.as_ref().filter(|_| self.of == memory.id()).map(|(copy, _)| copy)
    }
}

/// How long a task of a frozen container may take to give up its call.
const SAVE_LIMIT: Duration = Duration::from_secs(5);

impl ContainerGroup {
    /// Whether it is being saved.
    #[must_use]
    pub(crate) fn is_being_saved(&self) -> bool {
        self.being_saved.load(Ordering::SeqCst)
    }

    /// Has all tasks of the container, which is frozen, give up their calls and say what only they know: `Task::saved`.
    ///
    /// # Errors
    /// A task that does not, and what it is doing.
    pub async fn begin_save(&self, memory: SaveMemory) -> std::result::Result<(), String> {
        // Set before the first task is told, which asks for it.
        *self.copies.lock() = (memory == SaveMemory::Copied).then(Vec::new);
        self.being_saved.store(true, Ordering::SeqCst);
        self.refresh();
        // Those who sleep because it is frozen look at their flags.
        self.thawed.wake_all();
        let unsaved = || self.threads().find(|task| task.saved.lock().is_none());
        let look = || if unsaved().is_some() { Poll::Pending } else { Poll::Ready(()) };
        if self.within(SAVE_LIMIT, look).await {
            return Ok(());
        }
        // It came to rest as the time was over.
        let Some(task) = unsaved() else { return Ok(()) };
        let waits = *task.wchan.lock();
        Err(format!("task {} does not come to rest in {}", task.tid(), waits.unwrap_or("the sentry")))
    }

    /// Whether the task that asks is to have `memory` copied: the first of those that share it.
    pub(crate) fn begin_copy(&self, memory: u64) -> bool {
        let mut copies = self.copies.lock();
        let Some(copies) = copies.as_mut().filter(|copies| copies.iter().all(|copy| copy.of != memory)) else {
            return false;
        };
        copies.push(MemoryCopy { of: memory, made: None });
        true
    }

    /// The copy is made; without one the memory is written as it is.
    pub(crate) fn end_copy(&self, memory: u64, made: Option<(Arc<MemoryManager>, Box<dyn GuestThread>)>) {
        if let Some(copies) = self.copies.lock().as_mut()
            && let Some(copy) = copies.iter_mut().find(|copy| copy.of == memory)
        {
            copy.made = made;
        }
    }

    /// The copies that were made; they go with what is given.
    #[must_use]
    pub fn take_copies(&self) -> Vec<MemoryCopy> {
        self.copies.lock().take().unwrap_or_default()
    }

    /// Forgets what the tasks have said.
    pub fn end_save(&self) {
        drop(self.take_copies());
        self.being_saved.store(false, Ordering::SeqCst);
        for task in self.threads() {
            let gone = task.saved.lock().take();
            drop(gone);
        }
        self.refresh();
    }
}
