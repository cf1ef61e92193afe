//! What each task and thread does at one moment.

use std::io;
use std::sync::Arc;

use moat_abi::nr;
use moat_control::profile::{Frame, Record, Site};
use moat_kernel::task::Task;

use super::Source;
use super::recorder::Output;
use crate::registry::Registry;

/// The source.
pub(super) struct Tasks {
    registry: Arc<Registry>,
    /// What was seen when there were tasks, for a container that ends meanwhile.
    last: Vec<Vec<Frame>>,
}

impl Tasks {
    pub(super) fn new(registry: Arc<Registry>) -> Tasks {
        Tasks { registry, last: Vec::new() }
    }

    /// Looks at all tasks, if there are any.
    fn look(&mut self) {
        let mut seen = Vec::new();
        for container in self.registry.all() {
            for group in container.member.processes.processes() {
                for task in group.threads() {
                    let mut frames = vec![Frame::named(format!("container {}", container.id))];
                    describe(&task, &mut frames);
                    seen.push(frames);
                }
            }
        }
        // At the end of a command nobody is left: then the look before says what they did.
        if !seen.is_empty() {
            self.last = seen;
        }
    }
}

impl Source for Tasks {
    fn start(&mut self) -> moat_abi::Result<()> {
        Ok(())
    }

    fn collect(&mut self, _to: &mut Output) -> io::Result<()> {
        self.look();
        Ok(())
    }

    fn finish(&mut self, to: &mut Output) -> io::Result<u64> {
        let one = |frames| Record::Site(Site { frames, count: 1, time_ns: 0 });
        self.look();
        std::mem::take(&mut self.last).into_iter().try_for_each(|frames| to.write(&one(frames)))?;
        // They come last, so that what the host says of them is no older than the tasks.
        for thread in moat_host::procfs::own_threads() {
            let wchan = if thread.wchan == "0" || thread.wchan.is_empty() { "running".into() } else { thread.wchan };
            let frames = vec![Frame::named("sentry"), Frame::named(thread.name), Frame::named(wchan)];
            to.write(&one(frames))?;
        }
        Ok(0)
    }
}

/// Process, thread, call, and what it waits for.
fn describe(task: &Task, frames: &mut Vec<Frame>) {
    frames.push(Frame::named(command(task.tgid(), &task.comm())));
    if !task.is_leader() {
        frames.push(Frame::named(format!("thread {}", task.tid())));
    }
    if let Some((number, _)) = task.call.get() {
        frames.push(Frame::named(call_name(number)));
    }
    let waits = task.waits_in();
    let place = if task.flags.in_guest() { "application code" } else { waits.unwrap_or("runnable") };
    frames.push(Frame::named(place));
}

/// A process as profiles name it.
pub(super) fn command(tgid: i32, comm: &[u8]) -> String {
    format!("{} [{tgid}]", String::from_utf8_lossy(comm))
}

/// A system call as profiles name it.
pub(super) fn call_name(number: u64) -> String {
    let name = u32::try_from(number).ok().and_then(nr::name);
    name.map_or_else(|| format!("call {number}"), str::to_owned)
}
