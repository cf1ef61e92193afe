//! IOCB_CMD_POLL: a request that ends when a file is ready, or when it is cancelled.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use moat_abi::PollEvents;
use moat_mm::aio::KernelPoll;
use moat_sync::{Listener, WaitQueue};
use moat_vfs::OpenFile;

use super::context::{Completion, Context};

/// It waits; it was cancelled; it has ended.
const WAITS: u8 = 0;
const CANCELLED: u8 = 1;
const OVER: u8 = 2;

/// The request.
pub(super) struct PollRequest {
    file: Arc<OpenFile>,
    events: PollEvents,
    completion: Completion,
    state: AtomicU8,
    cancelled: WaitQueue,
}

impl PollRequest {
    pub(super) fn new(file: Arc<OpenFile>, events: PollEvents, completion: Completion) -> Arc<PollRequest> {
        let events = events | PollEvents::ALWAYS;
        let (state, cancelled) = (AtomicU8::new(WAITS), WaitQueue::new());
        Arc::new(PollRequest { file, events, completion, state, cancelled })
    }

    /// As data, of the context at that place.
    pub(super) fn saved(&self, context: usize) -> KernelPoll {
        let Completion { data, object, counter } = self.completion.clone();
        let counter = counter.map(|file| -> Arc<dyn Any + Send + Sync> { file });
        KernelPoll { context, file: self.file.clone(), events: self.events.to_pollfd(), data, object, counter }
    }

    /// Lets it wait.
    pub(super) fn begin(self: Arc<Self>, context: Arc<Context>) {
        // Known before it runs, so that it can be cancelled from the first moment on.
        context.add_poll(self.clone());
        moat_sync::spawn(self.run(context));
    }

    /// The address of the request.
    pub(super) fn object(&self) -> u64 {
        self.completion.object
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) != WAITS
    }

    /// Ends it without a result; false if it has ended, or was cancelled before.
    pub(super) fn cancel(&self) -> bool {
        let done = self.state.compare_exchange(WAITS, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok();
        // Of two that cancel, or one and the file, the first has done it.
        if done {
            self.cancelled.wake_all();
        }
        done
    }

    /// Waits for it, and completes it.
    pub(super) async fn run(self: Arc<Self>, context: Arc<Context>) {
        let result = self.ready().await;
        context.complete(&self.completion, result).await;
    }

    async fn ready(&self) -> i64 {
        // Registered before the first look: no change is missed.
        let mut listener: Listener = self.cancelled.listen(PollEvents::all());
        if let Some(registration) = self.file.register(self.events, listener.notifier()) {
            listener.keep(registration);
        }
        loop {
            if self.state.load(Ordering::Acquire) == CANCELLED {
                return 0;
            }
            let ready = self.file.poll() & self.events;
            let ends = !ready.is_empty();
            if ends && self.state.compare_exchange(WAITS, OVER, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return i64::from(ready.to_pollfd());
            }
            // Cancelled at the last moment, it goes round once more.
            if !ends {
                (&mut listener).await;
            }
        }
    }
}
