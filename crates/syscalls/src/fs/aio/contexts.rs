//! [`Contexts`]: the contexts of an address space, also into an image and out of it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::aio::IoEvent;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::state::{AioContextState, AioState};
use moat_image::{ImageError, Refusal};
use moat_kernel::Kernel;
use moat_mm::MemoryManager;
use moat_mm::aio::{KernelAio, KernelPoll};
use moat_sync::{LockClass, Mutex};
use moat_vfs::OpenFile;

use super::context::{Charge, Completion, Context, EVENT, HEADER};
use super::poll::PollRequest;

/// The contexts of an address space.
pub(super) struct Contexts {
    list: Mutex<Vec<Arc<Context>>>,
    made: AtomicU64,
}

impl Default for Contexts {
    fn default() -> Contexts {
        Contexts { list: Mutex::new(LockClass::Table, Vec::new()), made: AtomicU64::new(0) }
    }
}

impl Contexts {
    pub(super) fn of(memory: &MemoryManager) -> Arc<Contexts> {
        let any: Arc<dyn Any + Send + Sync> = memory.aio().get_or_init(|| Arc::new(Contexts::default())).clone();
        // Nobody else puts anything there.
        any.downcast().unwrap_or_default()
    }

    /// EINVAL if there is none of this name.
    pub(super) fn find(memory: &MemoryManager, ring: u64) -> Result<Arc<Context>> {
        let contexts = Contexts::of(memory);
        let list = contexts.list.lock();
        list.iter().find(|context| context.ring == ring).cloned().ok_or(Errno::EINVAL)
    }

    /// Adds one; gives its number.
    pub(super) fn add(&self, context: Arc<Context>) -> u32 {
        self.list.lock().push(context);
        u32::try_from(self.made.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    pub(super) fn remove(&self, context: &Arc<Context>) {
        // By what it is: the address may be another context's by now.
        self.list.lock().retain(|known| !Arc::ptr_eq(known, context));
    }
}

/// The address space is gone: nobody can take what its requests give.
impl Drop for Contexts {
    fn drop(&mut self) {
        for context in self.list.get_mut().drain(..) {
            context.kill();
        }
    }
}

impl KernelAio for Contexts {
    fn save(&self) -> std::result::Result<(AioState, Vec<KernelPoll>), Refusal> {
        // Copied, because what is under way is waited for.
        let list = self.list.lock().clone();
        let (mut contexts, mut polls) = (Vec::new(), Vec::new());
        for (at, context) in list.iter().enumerate() {
            let (state, waiting) = context.save()?;
            contexts.push(state);
            polls.extend(waiting.iter().map(|poll| poll.saved(at)));
        }
        Ok((AioState { made: self.made.load(Ordering::Relaxed), contexts }, polls))
    }
}

/// Gives `memory` the contexts that it had.
///
/// # Errors
/// A ring without room for its events.
pub fn restore(kernel: &Kernel, memory: &Arc<MemoryManager>, state: &AioState) -> std::result::Result<(), ImageError> {
    if *state == AioState::default() {
        return Ok(());
    }
    let contexts = Contexts::of(memory);
    contexts.made.store(state.made, Ordering::Relaxed);
    for saved in &state.contexts {
        let AioContextState { ring, len, capacity, requests, head, events, polls: _ } = saved;
        // What io_setup(2) gives: whole places behind a header, one of which stays free.
        let room = len.checked_sub(HEADER).and_then(|bytes| bytes.checked_div(EVENT));
        let fits = u32::try_from(events.len()).is_ok_and(|waiting| waiting < *capacity);
        if room != Some(u64::from(*capacity)) || head >= capacity || !fits {
            return Err(ImageError::state("a ring of asynchronous I/O has no room for what is in it"));
        }
        let context = Context::new(memory, *ring, *len, *capacity, Charge::again(&kernel.vfs.aio, *requests));
        let event = |(data, obj, res): &(u64, u64, i64)| IoEvent { data: *data, obj: *obj, res: *res, res2: 0 };
        context.put_back(*head, events.iter().map(event).collect());
        contexts.list.lock().push(context);
    }
    Ok(())
}

/// Begins the requests of `memory` again that waited for files.
///
/// # Errors
/// One without a file, or without room for its event.
pub fn restore_polls(
    memory: &Arc<MemoryManager>,
    state: &AioState,
    files: &[Arc<OpenFile>],
) -> std::result::Result<(), ImageError> {
    let wrong = || ImageError::state("a request of asynchronous I/O that waits for no file");
    let file = |at: u32| usize::try_from(at).ok().and_then(|at| files.get(at)).cloned().ok_or_else(wrong);
    for saved in &state.contexts {
        for poll in &saved.polls {
            let context = Contexts::find(memory, saved.ring).map_err(|_| wrong())?;
            // Each has a place for its event, or the ring could not take it.
            context.reserve().map_err(|_| ImageError::state("more asynchronous I/O than its ring has room for"))?;
            let counter = poll.counter.map(file).transpose()?;
            let completion = Completion { data: poll.data, object: poll.object, counter };
            let events = PollEvents::from_pollfd(poll.events);
            PollRequest::new(file(poll.file)?, events, completion).begin(context);
        }
    }
    Ok(())
}
