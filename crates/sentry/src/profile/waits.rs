//! How long guest tasks wait, by what they wait for.

use std::io;
use std::sync::Arc;

use moat_control::profile::{Frame, Record, Site};
use moat_kernel::Kernel;

use super::Source;
use super::recorder::Output;
use super::tasks::{call_name, command};
use crate::registry::Registry;

/// The source.
pub(super) struct Waits(pub(super) Arc<Registry>);

impl Waits {
    fn kernel(&self) -> &Kernel {
        self.0.root().member.processes.kernel()
    }
}

impl Source for Waits {
    fn start(&mut self) -> moat_abi::Result<()> {
        self.kernel().waits.start();
        Ok(())
    }

    fn collect(&mut self, _to: &mut Output) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, to: &mut Output) -> io::Result<u64> {
        // Those that still wait count up to now.
        let groups = self.0.all().into_iter().flat_map(|container| container.member.processes.processes());
        let tasks: Vec<_> = groups.flat_map(|group| group.threads()).collect();
        let (sites, dropped) = self.kernel().waits.stop(tasks.iter().filter_map(|task| task.waiting()));
        for (site, waited) in sites {
            let mut frames = vec![Frame::named(command(site.tgid, &site.comm))];
            frames.extend(site.call.map(|number| Frame::named(call_name(number))));
            frames.push(Frame::named(site.wchan));
            to.write(&Record::Site(Site { frames, count: waited.count, time_ns: waited.time_ns }))?;
        }
        Ok(dropped)
    }
}
