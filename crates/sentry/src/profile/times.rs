//! How long system calls take, and what all tasks have used.

use std::io;
use std::sync::Arc;

use moat_control::profile::{CallTime, Record, Totals};
use moat_host::process::own_usage;
use moat_kernel::Kernel;
use moat_kernel::task::usage::Usage;
use moat_sync::trace::{self, Observer};

use super::Source;
use super::recorder::Output;
use crate::registry::Registry;

/// The source.
pub(super) struct Times(Arc<Registry>);

impl Times {
    pub(super) fn new(registry: Arc<Registry>) -> Times {
        Times(registry)
    }

    fn kernel(&self) -> &Kernel {
        self.0.root().member.processes.kernel()
    }
}

impl Source for Times {
    fn start(&mut self) -> moat_abi::Result<()> {
        trace::start(Observer::Times);
        self.kernel().ask_again();
        Ok(())
    }

    fn collect(&mut self, _to: &mut Output) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, to: &mut Output) -> io::Result<u64> {
        trace::stop(Observer::Times);
        self.kernel().ask_again();
        let kernel = self.kernel();
        let calls = kernel.times.calls().into_iter().map(|call| CallTime {
            number: call.number,
            calls: call.calls,
            errors: call.errors,
            time_ns: call.time_ns,
        });
        to.write(&Record::Calls(calls.collect()))?;
        let mut used = Usage::default();
        for container in self.0.all() {
            // Zombies are among the dead already.
            used.add(&container.member.processes.dead_usage());
            let groups = container.member.processes.processes();
            groups.iter().flat_map(|group| group.threads()).for_each(|thread| used.add(&thread.usage.get()));
        }
        let own = own_usage();
        let (guest_wall_ns, wait_ns) = kernel.times.guest_and_wait_ns();
        to.write(&Record::Totals(Totals {
            guest_ns: used.user_ns,
            guest_wall_ns,
            wait_ns,
            sentry_ns: own.user_ns,
            host_ns: own.system_ns,
            max_resident_bytes: used.max_rss_kib.saturating_mul(1024),
            processes: kernel.forks.load(std::sync::atomic::Ordering::Relaxed),
            voluntary_switches: own.voluntary_switches,
            involuntary_switches: own.involuntary_switches,
        }))?;
        Ok(0)
    }
}
