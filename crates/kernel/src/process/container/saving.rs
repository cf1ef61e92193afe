//! What a container's tasks do while it is saved: each says what only it knows (`crate::task::rest`), and the first of each address space
//! may have the host copy it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use moat_host::userfault::WriteWatch;
use moat_mm::MemoryManager;
use moat_platform::GuestThread;

use super::ContainerGroup;

/// What becomes of memory while a container is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaveMemory {
    /// It stays as it is until all of it is written: the container stands still for as long.
    Still,
    /// The host makes a copy of each process (copy-on-write), so that the container can go on; but for the address spaces of these ids.
    Copied {
        /// What changes there is seen otherwise.
        but: Vec<u64>,
    },
    /// It stays as it is, and what is written to where there is much of it is seen from here on.
    Watched,
}

/// A copy of an address space, in a host process that runs nothing; or a watch over it.
pub struct MemoryCopy {
    of: u64,
    made: Made,
}

enum Made {
    Nothing,
    Copy(
        Arc<MemoryManager>,
        #[allow(dead_code, reason = "the process lives as long as its thread")] Box<dyn GuestThread>,
    ),
    Watch(Arc<MemoryManager>, WriteWatch),
}

impl MemoryCopy {
    /// The copy, if it is one of `memory` and could be made.
    #[must_use]
    pub fn of(&self, memory: &MemoryManager) -> Option<&Arc<MemoryManager>> {
        match &self.made {
            Made::Copy(copy, _) if self.of == memory.id() => Some(copy),
            _ => None,
        }
    }

    /// The watch, if it is one, and what it watches.
    #[must_use]
    pub fn into_watch(self) -> Option<(Arc<MemoryManager>, WriteWatch)> {
        match self.made {
            Made::Watch(memory, watch) => Some((memory, watch)),
            _ => None,
        }
    }
}

/// Copies and watches that are made while a container is saved.
pub(super) struct Copies {
    how: SaveMemory,
    made: Vec<MemoryCopy>,
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
        *self.copies.lock() = Some(Copies { how: memory, made: Vec::new() });
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

    /// Whether a process has so much memory that it is better written while it runs.
    #[must_use]
    pub fn has_much_memory(&self) -> bool {
        self.threads().any(|task| task.mm_of().is_some_and(|mm| moat_mm::is_worth_watching(mm.space().host_pid())))
    }

    /// Has `memory` of the task whose thread it is copied or watched, as is wanted, if it is the first of those that share it.
    pub(crate) async fn copy_memory(&self, memory: &Arc<MemoryManager>, thread: &mut dyn GuestThread) {
        let id = memory.id();
        // Given up before the thread is told anything: other tasks look at the list meanwhile.
        let watched = {
            let mut copies = self.copies.lock();
            let Some(copies) = copies.as_mut().filter(|copies| copies.made.iter().all(|copy| copy.of != id)) else {
                return;
            };
            let watched = match &copies.how {
                SaveMemory::Still => return,
                SaveMemory::Copied { but } if but.contains(&id) => return,
                SaveMemory::Copied { .. } => false,
                SaveMemory::Watched => true,
            };
            copies.made.push(MemoryCopy { of: id, made: Made::Nothing });
            watched
        };
        let made = if watched {
            // Noted all the same, so that no other task of it asks again.
            if !moat_mm::is_worth_watching(memory.space().host_pid()) {
                return;
            }
            memory.watch_writes(thread).await.map(|watch| Made::Watch(memory.clone(), watch))
        } else {
            memory.fork(thread).await.map(|(copy, thread)| Made::Copy(copy, thread))
        };
        match made {
            // The list may be gone by now, if the time was over: what was made goes with it.
            Ok(made) => {
                let mut copies = self.copies.lock();
                if let Some(copy) = copies.iter_mut().flat_map(|c| &mut c.made).find(|copy| copy.of == id) {
                    copy.made = made;
                }
            }
            // The host is older, or does not let it.
            Err(errno) if watched => tracing::debug!(%errno, "what is written to memory can't be seen"),
            Err(errno) => {
                tracing::warn!(%errno, "a process can't be copied: it stands still until its memory is written");
            }
        }
    }

    /// The copies that were made; they go with what is given.
    #[must_use]
    pub fn take_copies(&self) -> Vec<MemoryCopy> {
        self.copies.lock().take().map(|copies| copies.made).unwrap_or_default()
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
