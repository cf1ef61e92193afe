//! What the sandbox process allocates: samples of [`moat_host::sampling::heap`].

use std::io;

use moat_control::profile::{HEAP_INTERVAL_BYTES, Record};
use moat_host::sampling::heap;

use super::recorder::Output;
use super::sentry_cpu::stack;
use super::{Source, write_own_modules};

/// Numbers of samples in a record.
const IDS_IN_RECORD: usize = 1024;

/// The source.
pub(super) struct Heap;

impl Source for Heap {
    fn start(&mut self) -> moat_abi::Result<()> {
        heap::start(HEAP_INTERVAL_BYTES)
    }

    fn collect(&mut self, to: &mut Output) -> io::Result<()> {
        let mut samples = Vec::new();
        heap::ring().take(|sample| samples.push(sample));
        for sample in samples {
            let [size, id] = sample.payload;
            to.write(&stack(sample, String::new(), size, id))?;
        }
        Ok(())
    }

    fn finish(&mut self, to: &mut Output) -> io::Result<u64> {
        let in_use = heap::stop();
        self.collect(to)?;
        // At the end, because the reader needs them only then.
        write_own_modules(to)?;
        for ids in in_use.chunks(IDS_IN_RECORD) {
            to.write(&Record::InUse(ids.to_vec()))?;
        }
        Ok(heap::ring().dropped())
    }
}
