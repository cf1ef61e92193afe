//! CPU time of guest threads: samples of [`moat_kernel::task::samples`], and the programs that they are in.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use moat_abi::mman::ProtFlags;
use moat_control::profile::{Module, Record, Space, StackSample};
use moat_kernel::task::TaskId;
use moat_kernel::task::samples::GuestSample;
use moat_mm::{FileIdentity, MemoryManager};

use super::recorder::Output;
use super::tasks::command;
use crate::registry::Registry;

/// Bytes of a file in a record.
const CHUNK_BYTES: usize = 512 << 10;

/// Files that are longer, and more bytes in all, are not written: their functions have no names.
const MAX_FILE_BYTES: u64 = 128 << 20;
const MAX_ALL_BYTES: u64 = 512 << 20;

/// What of the guest's CPU time has been seen.
pub(super) struct GuestCpu {
    registry: Arc<Registry>,
    /// CPU time of each task that is accounted for.
    seen_ns: HashMap<TaskId, u64>,
    memories: Vec<Memory>,
    /// Files that have been written, by number.
    files: HashMap<FileIdentity, u64>,
    written_bytes: u64,
    dropped: u64,
}

/// An address space.
struct Memory {
    memory: Weak<MemoryManager>,
    /// The first addresses of the areas that have been written.
    areas: HashSet<u64>,
}

impl GuestCpu {
    pub(super) fn new(registry: Arc<Registry>) -> GuestCpu {
        let (memories, files) = (Vec::new(), HashMap::new());
        GuestCpu { registry, seen_ns: HashMap::new(), memories, files, written_bytes: 0, dropped: 0 }
    }

    /// Begins: what has been used up to here does not count.
    pub(super) fn start(&mut self) {
        let kernel = self.registry.root().member.processes.kernel();
        drop(kernel.samples.take());
        kernel.samples.take_dropped();
        for container in self.registry.all() {
            for task in container.member.processes.processes().iter().flat_map(|group| group.threads()) {
                self.seen_ns.insert(task.id, task.usage.get().user_ns);
            }
        }
    }

    /// Asks those that have used CPU time for samples, and writes those that there are.
    pub(super) fn collect(&mut self, to: &mut Output) -> io::Result<()> {
        for container in self.registry.all() {
            for task in container.member.processes.processes().iter().flat_map(|group| group.threads()) {
                let used_ns = task.usage.get().user_ns;
                let seen_ns = self.seen_ns.entry(task.id).or_insert(0);
                let more_ns = used_ns.saturating_sub(*seen_ns);
                // Who sleeps, or is in the sentry, is asked when it is back in application code.
                if more_ns > 0 && task.ask_for_sample(more_ns) {
                    *seen_ns = used_ns;
                }
            }
        }
        let kernel = self.registry.root().member.processes.kernel().clone();
        self.dropped = self.dropped.saturating_add(kernel.samples.take_dropped());
        kernel.samples.take().into_iter().try_for_each(|sample| self.write(sample, to))
    }

    /// Samples that were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn write(&mut self, sample: GuestSample, to: &mut Output) -> io::Result<()> {
        // A place in memory is no other's while somebody has a weak reference.
        let known = self.memories.iter().position(|known| known.memory.ptr_eq(&sample.memory));
        let number = known.unwrap_or_else(|| {
            self.memories.push(Memory { memory: sample.memory.clone(), areas: HashSet::new() });
            self.memories.len().saturating_sub(1)
        });
        let space = Space::Guest(u64::try_from(number).unwrap_or(u64::MAX));
        // Held weakly: a profile keeps no process alive that has ended.
        if let Some(memory) = sample.memory.upgrade() {
            self.write_areas(number, space, &memory, to)?;
        }
        to.write(&Record::Stack(StackSample {
            space,
            thread: command(sample.tgid, &sample.comm),
            value: sample.value_ns,
            id: 0,
            ip: sample.ip,
            sp: sample.sp,
            bp: sample.bp,
            stack: sample.stack.into(),
        }))
    }

    /// Writes the executable areas of files that have come since the last look.
    fn write_areas(&mut self, number: usize, space: Space, memory: &MemoryManager, to: &mut Output) -> io::Result<()> {
        for area in memory.vmas_snapshot() {
            let Some(identity) = area.file.filter(|_| area.prot.contains(ProtFlags::EXEC)) else { continue };
            // A program may map libraries at any time.
            let is_new = self.memories.get_mut(number).is_some_and(|known| known.areas.insert(area.start));
            if !is_new {
                continue;
            }
            let file = match self.files.get(&identity) {
                Some(file) => *file,
                None => self.write_file(identity, memory.file_at(area.start), to)?,
            };
            to.write(&Record::Module(Module {
                space,
                path: String::from_utf8_lossy(&area.name).into_owned(),
                bias: 0,
                start: area.start,
                end: area.end,
                build_id: Vec::new(),
                file: Some((file, area.offset)),
            }))?;
        }
        Ok(())
    }

    /// Writes the contents of a file, as far as they are not too long; gives its number.
    fn write_file(&mut self, identity: FileIdentity, fd: Option<Arc<OwnedFd>>, to: &mut Output) -> io::Result<u64> {
        let number = u64::try_from(self.files.len()).unwrap_or(u64::MAX);
        self.files.insert(identity, number);
        let Some(fd) = fd else { return Ok(number) };
        let length = rustix::fs::fstat(&*fd).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        let room = MAX_ALL_BYTES.saturating_sub(self.written_bytes);
        if length > MAX_FILE_BYTES.min(room) {
            return Ok(number);
        }
        self.written_bytes = self.written_bytes.saturating_add(length);
        let mut at = 0u64;
        while at < length {
            let mut bytes = vec![0; CHUNK_BYTES];
            // A file that can't be read, or has become shorter: what there is may do.
            let n = rustix::io::pread(&*fd, &mut *bytes, at).unwrap_or(0);
            if n == 0 {
                break;
            }
            bytes.truncate(n);
            at = at.saturating_add(u64::try_from(n).unwrap_or(0));
            to.write(&Record::File { number, bytes: bytes.into() })?;
        }
        Ok(number)
    }
}
