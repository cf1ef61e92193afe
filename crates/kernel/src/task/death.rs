//! [`Deathwatch`]: a task that is to die does so, whether its host thread answers or not.
//!
//! A killed task leaves application code by a kick and ends its orders by itself, and a hostile guest can refuse both.
//! While a task that is to die (`Work::KILL`) waits, its future looks after its host thread: one that has gone on in the
//! guest's hands for [`CPU_GRACE`] of CPU time, or [`GRACE`] in all, dies with its process.
//!
//! The first bound is for guests that spin. A thread that the host has not let run for long has not refused anything
//! yet, and what it leaves behind (robust futexes) can be seen to only while its memory is there; the second bound is for
//! what uses no CPU.

use std::pin::Pin;
use std::task::Context;
use std::time::{Duration, Instant};

use moat_host::clock::deadline_in;
use moat_sync::timer::{Sleep, sleep_until};

use crate::task::Task;
use crate::task::work::Work;

/// How often to look.
const STEP: Duration = Duration::from_millis(20);
/// CPU time that a thread may use after it was told to die. Its answer to a kick takes some microseconds.
const CPU_GRACE: Duration = Duration::from_millis(20);
/// How long it may take in all.
const GRACE: Duration = Duration::from_secs(2);

/// The state of the watch over one task, in its future.
#[derive(Default)]
pub(crate) struct Deathwatch(Option<Watching>);

struct Watching {
    since: Instant,
    cpu_ns: u64,
    next: Sleep,
}

fn step() -> Sleep {
    sleep_until(deadline_in(STEP))
}

impl Deathwatch {
    /// Looks after `task`, whose future has just said that it waits.
    pub(crate) fn look(&mut self, task: &Task, cx: &mut Context<'_>) {
        if !task.work().contains(Work::KILL) {
            self.0 = None;
            return;
        }
        let Some(kicker) = task.kicker() else { return };
        loop {
            let now = Instant::now();
            let watching =
                self.0.get_or_insert_with(|| Watching { since: now, cpu_ns: kicker.cpu_time_ns(), next: step() });
            if Pin::new(&mut watching.next).poll(cx).is_pending() {
                return;
            }
            // In the sentry's hands it looks at its work by itself.
            if kicker.is_away() {
                let used = Duration::from_nanos(kicker.cpu_time_ns().saturating_sub(watching.cpu_ns));
                if used >= CPU_GRACE || now.duration_since(watching.since) >= GRACE {
                    tracing::info!(tid = task.tid(), "killing the host process of a task that doesn't die");
                    kicker.end();
                }
            }
            watching.next = step();
        }
    }
}
