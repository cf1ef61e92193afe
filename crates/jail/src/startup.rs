//! [`StartupTimes`]: what a start takes its time for, a line for each step (`moat --trace-startup`).
//!
//! A step that is done is an event of the target [`STEPS`]: whoever does it says so by `tracing::info!`, and pays nothing where nobody
//! listens. All processes that take part write to one file, by one clock.

use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use moat_control::start::STEPS;
use moat_host::clock::monotonic_ns;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Writes a line for each step: how long after the command's begin it was done, how long after the last step of the same process, and what
/// it was.
pub struct StartupTimes {
    process: &'static str,
    file: File,
    began_ns: u64,
    last_ns: AtomicU64,
}

impl StartupTimes {
    /// Steps of `process` from here on; the command began at `began_ns` of CLOCK_MONOTONIC.
    #[must_use]
    pub fn new(process: &'static str, began_ns: u64, file: File) -> StartupTimes {
        StartupTimes { process, file, began_ns, last_ns: AtomicU64::new(monotonic_ns()) }
    }
}

fn line(process: &str, since_begin_ns: u64, since_last_ns: u64, step: &str) -> String {
    let (at, took) = (since_begin_ns / 1000, since_last_ns / 1000);
    format!("start-up {at:>8} us  +{took:>7} us  {process}: {step}\n")
}

impl<S: Subscriber> Layer<S> for StartupTimes {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != STEPS {
            return;
        }
        let now = monotonic_ns();
        let last = self.last_ns.swap(now, Ordering::Relaxed);
        let mut step = Message(String::new());
        event.record(&mut step);
        let line = line(self.process, now.saturating_sub(self.began_ns), now.saturating_sub(last), &step.0);
        // One write, so that lines of several processes stay whole. Nothing can be done where there is no room.
        let _ = (&self.file).write_all(line.as_bytes());
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_both_times() {
        let line = line("moat-sandbox", 12_345_678, 9_999, "isolated");
        assert_eq!(line, "start-up    12345 us  +      9 us  moat-sandbox: isolated\n");
    }
}
