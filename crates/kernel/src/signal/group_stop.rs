//! How a thread takes part in a group stop: it sleeps until the process is continued, or stops for its tracer.

use std::task::Poll;

use moat_abi::PollEvents;

use crate::ptrace;
use crate::signal::stop::{Notifications, participate};
use crate::task::CurrentTask;
use crate::task::rest::Resume;
use crate::task::wait::Wait;

impl CurrentTask {
    /// Takes part in the group stop under way and sleeps until it ends.
    pub async fn group_stop(&mut self) {
        let group = self.task().group.clone();
        let id = self.task().id;
        let traced = {
            let mut s = group.signals.lock();
            let Some(t) = s.threads.get_mut(&id) else { return };
            // A SIGCONT came first.
            if !t.stop_pending {
                s.recalc(id);
                return;
            }
            t.stop_pending = false;
            let traced = t.trace.is_some();
            // A task out of an image may be in the stop already, of which everybody has been told.
            let again = t.stopped;
            t.stopped = !traced;
            let n = if again { Notifications::default() } else { participate(&mut s) };
            s.recalc(id);
            let signal = s.stop.signal;
            drop(s);
            n.deliver(&group);
            traced.then_some(signal).flatten()
        };
        if let Some(signal) = traced {
            ptrace::stop::group_stop(self, signal).await;
            return;
        }
        let look = |_: &mut CurrentTask| {
            let stopped = group.signals.lock().threads.get(&id).is_some_and(|t| t.stopped && !t.killed);
            if stopped { Poll::Pending } else { Poll::Ready(()) }
        };
        let wait = Wait::resumable("do_signal_stop", Resume::Run);
        // Only a task that dies leaves the stop early.
        let _ = self.wait_for(&(&group.stop_queue, PollEvents::all()), &wait, look).await;
        let mut s = group.signals.lock();
        if let Some(t) = s.threads.get_mut(&id) {
            t.stopped = false;
        }
        s.recalc(id);
    }
}
