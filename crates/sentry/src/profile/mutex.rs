//! How long threads of the sandbox process wait for locks.

use std::io;

use moat_control::profile::{Frame, Record, Site};
use moat_sync::contention;

use super::Source;
use super::recorder::Output;

/// The source.
pub(super) struct Locks;

impl Source for Locks {
    fn start(&mut self) -> moat_abi::Result<()> {
        contention::start();
        Ok(())
    }

    fn collect(&mut self, _to: &mut Output) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, to: &mut Output) -> io::Result<u64> {
        for contended in contention::stop() {
            let at = contended.at;
            let place = Frame { name: format!("{}:{}", at.file(), at.line()), file: at.file().into(), line: at.line() };
            let frames = vec![Frame::named(format!("locks of class {:?}", contended.class)), place];
            to.write(&Record::Site(Site { frames, count: contended.count, time_ns: contended.time_ns }))?;
        }
        Ok(0)
    }
}
