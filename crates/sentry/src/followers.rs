//! [`Followers`]: host processes that stand for processes of `exec`, and how long a container waits for them.
//!
//! On Linux a container's init ends after all other processes of its pid namespace have been reaped, so whoever reaps them all hears
//! of its end last.
//! containerd's shim relies on that: when the init has ended it says goodbye, and a client of an `exec` whose end comes
//! later waits for ever. Here each is a process of its own that learns of its end by a message, so the order has to be made.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use moat_abi::{PollEvents, Result};
use moat_host::clock::deadline_after;
use moat_host::procfs::is_reaped;
use moat_sync::reactor::Watch;
use moat_sync::timer::sleep_until;
use moat_sync::{LockClass, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::unless::unless;

/// They have nothing to do but to end, and clients reap at once: one that takes longer is stopped, or nobody reaps it.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Time between two looks whether an ended process has been reaped: not every host tells.
const STEP_NS: u64 = 1_000_000;

/// The most that are kept in mind for one container.
const MOST: usize = 4096;

/// Those of one container.
pub(crate) struct Followers {
    list: Mutex<Vec<Arc<Follower>>>,
}

struct Follower {
    pidfd: Arc<OwnedFd>,
    watch: Watch,
}

impl Follower {
    /// A process can be read from its pidfd when its parent can reap it.
    fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl Default for Followers {
    fn default() -> Followers {
        Followers { list: Mutex::new(LockClass::Control, Vec::new()) }
    }
}

impl Followers {
    /// Adds the process of `pidfd`.
    ///
    /// # Errors
    /// EPERM for what can't be watched; ENOMEM.
    pub(crate) fn add(&self, pidfd: OwnedFd) -> Result<()> {
        let pidfd = Arc::new(pidfd);
        let follower = Arc::new(Follower { watch: Watch::new(pidfd.clone())?, pidfd });
        let mut list = self.list.lock();
        // Here and not when each ends: nobody else needs to know.
        list.retain(|f| !f.has_ended());
        if list.len() < MOST {
            list.push(follower);
        }
        Ok(())
    }

    /// Waits until they have ended and been reaped. They end when they have been told of the end of their processes.
    pub(crate) async fn have_ended(&self) {
        let deadline = deadline_after(PATIENCE_NS);
        // A copy: the sandbox's end waits as well as whoever asked for the container's.
        let all = self.list.lock().clone();
        for follower in &all {
            let look = || if follower.has_ended() { Poll::Ready(()) } else { Poll::Pending };
            unless(follower.watch.wait_queue().until(PollEvents::all(), look), sleep_until(deadline)).await;
            while !is_reaped(follower.pidfd.as_fd()) && Instant::now() < deadline {
                sleep_until(deadline_after(STEP_NS)).await;
            }
        }
    }
}
