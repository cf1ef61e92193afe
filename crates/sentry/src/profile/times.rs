//! How long system calls take, and what all tasks have used.

use std::collections::BTreeMap;
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

/// The source. Calls are counted by the containers' metrics; from when on is remembered.
pub(super) struct Times {
    registry: Arc<Registry>,
    before: BTreeMap<u64, (u64, u64)>,
}

impl Times {
    pub(super) fn new(registry: Arc<Registry>) -> Times {
        Times { registry, before: BTreeMap::new() }
    }

    fn kernel(&self) -> &Kernel {
        self.registry.root().member.processes.kernel()
    }

    /// Calls and errors by number, of all containers.
    fn counted(&self) -> BTreeMap<u64, (u64, u64)> {
        let mut sums = BTreeMap::new();
        for container in self.registry.all() {
            for (number, calls, errors) in container.member.processes.metrics.read().by_number() {
                let sum: &mut (u64, u64) = sums.entry(number).or_default();
                *sum = (sum.0.saturating_add(calls), sum.1.saturating_add(errors));
            }
        }
        sums
    }
}

impl Source for Times {
    fn start(&mut self) -> moat_abi::Result<()> {
        self.before = self.counted();
        self.kernel().change_watchers(|_| trace::start(Observer::Times));
        Ok(())
    }

    fn collect(&mut self, _to: &mut Output) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, to: &mut Output) -> io::Result<u64> {
        self.kernel().change_watchers(|_| trace::stop(Observer::Times));
        let kernel = self.kernel();
        let calls = self.counted().into_iter().filter_map(|(number, (calls, errors))| {
            // What was counted before, by whoever ran then, is none of this summary.
            let before = self.before.get(&number).copied().unwrap_or_default();
            let (calls, errors) = (calls.saturating_sub(before.0), errors.saturating_sub(before.1));
            (calls > 0).then(|| CallTime { number, calls, errors, time_ns: kernel.times.call_ns(number) })
        });
        to.write(&Record::Calls(calls.collect()))?;
        let mut used = Usage::default();
        for container in self.registry.all() {
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
