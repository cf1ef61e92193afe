//! [`Beginning`]: a container that has no init yet, because it waits for the other containers of its image.

use std::sync::OnceLock;
use std::task::Poll;

use moat_abi::PollEvents;
use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::signal::Signal;
use moat_kernel::spawn::Process;
use moat_sync::{LockClass, Mutex, WaitQueue};

/// When a container's init comes, and what was wanted of it before.
pub(crate) struct Beginning {
    init: OnceLock<Process>,
    wanted: Mutex<Wanted>,
    /// How it ended without an init.
    given_up: OnceLock<WaitStatus>,
    changed: WaitQueue,
}

/// What was wanted of a container before it had an init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Wanted {
    Nothing,
    Start,
    End,
}

impl Default for Beginning {
    fn default() -> Self {
        Beginning {
            init: OnceLock::new(),
            wanted: Mutex::new(LockClass::Control, Wanted::Nothing),
            given_up: OnceLock::new(),
            changed: WaitQueue::new(),
        }
    }
}

impl Beginning {
    /// Its init has been made; gives what was wanted before.
    pub(crate) fn begin(&self, init: Process) -> Wanted {
        let wanted = {
            // Whoever gives it up, or starts it, meanwhile finds either the init here or its wish in what is given back.
            let wanted = self.wanted.lock();
            let _ = self.init.set(init);
            *wanted
        };
        self.changed.wake_all();
        wanted
    }

    /// The init.
    pub(crate) fn init(&self) -> Option<&Process> {
        self.init.get()
    }

    /// Whether it has no init and may have one yet.
    pub(crate) fn is_open(&self) -> bool {
        self.init.get().is_none() && self.given_up.get().is_none()
    }

    /// Notes that it is to be started; false if it has an init, or will have none.
    pub(crate) fn start_later(&self) -> bool {
        let mut wanted = self.wanted.lock();
        // Starting it twice is an error, here as elsewhere.
        let later = self.is_open() && *wanted == Wanted::Nothing;
        if later {
            *wanted = Wanted::Start;
        }
        later
    }

    /// Ends it as if `signal` had ended its init; false if it has one.
    pub(crate) fn give_up(&self, signal: Signal) -> bool {
        {
            let mut wanted = self.wanted.lock();
            if self.init.get().is_some() {
                return false;
            }
            // The first signal counts.
            *wanted = Wanted::End;
            let signal = u8::try_from(signal.number()).unwrap_or(9);
            let _ = self.given_up.set(WaitStatus::Signaled { signal, core: CoreDump::NotDumped });
        }
        self.changed.wake_all();
        true
    }

    /// Whether its init has ended, or will never be.
    pub(crate) fn has_ended(&self) -> bool {
        self.given_up.get().is_some() || self.init.get().is_some_and(|init| init.status().is_some())
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> WaitStatus {
        let look = || match (self.init.get(), self.given_up.get()) {
            // It may have been given up before: then its init is about to end, too.
            (Some(init), _) => Poll::Ready(Ok(init)),
            (None, Some(status)) => Poll::Ready(Err(*status)),
            (None, None) => Poll::Pending,
        };
        match self.changed.until(PollEvents::all(), look).await {
            Ok(init) => init.wait().await,
            Err(status) => status,
        }
    }
}
