//! CPU time of the sandbox process: samples of [`moat_host::sampling::ticks`]; and, with it, of the guest.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use moat_control::profile::{Record, Space, StackSample};
use moat_host::sampling::ring::Sample;
use moat_host::sampling::ticks;

use super::guest_cpu::GuestCpu;
use super::recorder::Output;
use super::{Source, write_own_modules};
use crate::registry::Registry;

/// Samples in a second of CPU time: a prime, so that what happens in step with a clock is seen too.
const RATE: u32 = 97;

/// Nanoseconds that a sample stands for.
const PERIOD_NS: u64 = 10_309_278;

/// The source, with the guest's CPU time.
pub(super) struct Cpu {
    names: HashMap<i32, String>,
    guest: GuestCpu,
}

impl Source for Cpu {
    fn start(&mut self) -> moat_abi::Result<()> {
        self.guest.start();
        ticks::start(RATE)
    }

    fn collect(&mut self, to: &mut Output) -> io::Result<()> {
        if self.names.is_empty() {
            self.learn_names();
            write_own_modules(to)?;
        }
        // Emptied first: writing may take long, and the ring is small.
        let mut samples = Vec::new();
        ticks::ring().take(|sample| samples.push(sample));
        for sample in samples {
            let thread = self.name(sample.thread);
            to.write(&stack(sample, thread, PERIOD_NS, 0))?;
        }
        self.guest.collect(to)
    }

    fn finish(&mut self, to: &mut Output) -> io::Result<u64> {
        ticks::stop();
        self.collect(to)?;
        Ok(ticks::ring().dropped().saturating_add(self.guest.dropped()))
    }
}

impl Cpu {
    pub(super) fn new(registry: Arc<Registry>) -> Cpu {
        Cpu { names: HashMap::new(), guest: GuestCpu::new(registry) }
    }

    fn learn_names(&mut self) {
        self.names = moat_host::procfs::own_threads().into_iter().map(|t| (t.tid, t.name)).collect();
    }

    fn name(&mut self, tid: i32) -> String {
        if !self.names.contains_key(&tid) {
            self.learn_names();
            // It has ended: its name is not asked for again.
            self.names.entry(tid).or_default();
        }
        self.names.get(&tid).cloned().unwrap_or_default()
    }
}

/// A sample of this process as a record.
pub(super) fn stack(sample: Sample, thread: String, value: u64, id: u64) -> Record {
    let registers = sample.registers;
    Record::Stack(StackSample {
        space: Space::Sentry,
        thread,
        value,
        id,
        ip: registers.ip,
        sp: registers.sp,
        bp: registers.bp,
        stack: sample.stack.into(),
    })
}
