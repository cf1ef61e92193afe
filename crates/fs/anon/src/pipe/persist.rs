//! Pipes into an image, and out of it.

use std::collections::VecDeque;
use std::sync::Arc;

use moat_abi::fs::{AccessMode, OpenFlags, S_IALLUGO};
use moat_abi::time::Timespec;
use moat_image::state::{OpenFileKind, PipeEndState, PipeState as Saved};
use moat_image::{ImageError, Met, Refusal};
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::anon::Pseudo;
use moat_vfs::persist::SaveFiles;
use moat_vfs::{Credentials, OpenFile, Path, Vfs};

use super::{Attr, End, MAX_SIZE_PRIVILEGED, PAGE, Pipe, PipeState};

/// Inode numbers are below this.
const MAX_INO: u64 = 1 << 62;

impl End {
    pub(super) fn save_end(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> Result<OpenFileKind, Refusal> {
        let pipe = match saver.pipes().meet(Arc::as_ptr(&self.pipe).addr()) {
            Met::Before(pipe) => pipe,
            Met::First(pipe) => {
                // A FIFO's contents are found again by its name; a pipe has none, and is made.
                let fifo = if f.path().dentry.is_anonymous() { None } else { Some(saver.path(f.path())?) };
                let mut saved = self.pipe.save();
                saved.fifo = fifo;
                saver.pipes().fill(pipe, saved);
                pipe
            }
        };
        Ok(OpenFileKind::Pipe(PipeEndState { pipe, seen: (self.readers_seen, self.writers_seen) }))
    }
}

impl Pipe {
    fn save(&self) -> Saved {
        let (mode, uid, gid, times) = {
            let a = self.attr.lock();
            (a.mode, a.uid, a.gid, [a.atime, a.mtime, a.ctime].map(|t| (t.tv_sec, t.tv_nsec)))
        };
        let s = self.state.lock();
        Saved {
            fifo: None,
            ino: self.ino,
            mode,
            uid,
            gid,
            times,
            size: length(s.size),
            data: s.data.iter().copied().collect(),
            packets: s.packets.iter().map(|len| length(*len)).collect(),
            ever: (s.readers_ever, s.writers_ever),
        }
    }

    /// A pipe without a name out of an image; it has no ends.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn restore(vfs: &Vfs, saved: &Saved) -> Result<Arc<Pipe>, ImageError> {
        if saved.ino >= MAX_INO {
            return Err(ImageError::state(format!("the inode number {} of a pipe", saved.ino)));
        }
        // No later pipe may get the number that this one shows.
        vfs.ids.inodes.skip(saved.ino);
        let [atime, mtime, ctime] = saved.times.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
        let attr = Attr { mode: saved.mode & S_IALLUGO, uid: saved.uid, gid: saved.gid, atime, mtime, ctime };
        let pipe = Pipe {
            ino: saved.ino,
            state: Mutex::new(LockClass::Stream, state_of(saved, (0, 0))?),
            attr: Mutex::new(LockClass::Inode, attr),
            queue: WaitQueue::new(),
        };
        Ok(Arc::new(pipe))
    }

    /// Fills what is behind a FIFO as it was.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn refill(&self, saved: &Saved) -> Result<(), ImageError> {
        // Its ends are opened by then, and stay counted.
        let mut s = self.state.lock();
        *s = state_of(saved, (s.readers, s.writers))?;
        Ok(())
    }

    /// Opens an end as it was, without the rules of an opening.
    ///
    /// # Errors
    /// Flags of neither end.
    pub fn put_end_back(
        self: &Arc<Self>,
        vfs: &Vfs,
        saved: &PipeEndState,
        fifo: Option<Path>,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> Result<Arc<OpenFile>, ImageError> {
        let mode = flags.access_mode();
        if mode == AccessMode::Neither {
            return Err(ImageError::state("an end of a pipe that neither reads nor writes"));
        }
        let (reads, writes) = (mode.can_read(), mode.can_write());
        {
            let mut s = self.state.lock();
            s.readers = s.readers.saturating_add(u32::from(reads));
            s.writers = s.writers.saturating_add(u32::from(writes));
        }
        let (readers_seen, writers_seen) = saved.seen;
        let end = Arc::new(End { pipe: self.clone(), reads, writes, readers_seen, writers_seen });
        let name = format!("pipe:[{}]", self.ino);
        let path = fifo.unwrap_or_else(|| vfs.pseudo_path(Pseudo::Pipe, self.clone(), name.as_bytes()));
        Ok(OpenFile::new(end, path, flags, creds.clone()))
    }
}

fn state_of(saved: &Saved, (readers, writers): (u32, u32)) -> Result<PipeState, ImageError> {
    let wrong = || ImageError::state("what is in a pipe");
    let size = usize::try_from(saved.size).map_err(|_| wrong())?;
    let packets = saved.packets.iter().map(|len| usize::try_from(*len).map_err(|_| wrong()));
    let packets = packets.collect::<Result<VecDeque<_>, _>>()?;
    let in_packets = packets.iter().try_fold(0_usize, |sum, len| sum.checked_add(*len)).ok_or_else(wrong)?;
    let few = saved.ever.0.max(saved.ever.1) < 1 << 62;
    // The sizes that fcntl(2) gives, and no more in it than fits. Counts of openings have room to go on.
    let fits = few && (PAGE..=MAX_SIZE_PRIVILEGED).contains(&size) && size.is_power_of_two();
    if !fits || saved.data.len() > size || in_packets > saved.data.len() || packets.contains(&0) {
        return Err(wrong());
    }
    let (readers_ever, writers_ever) = saved.ever;
    Ok(PipeState { data: saved.data.clone().into(), packets, size, readers, writers, readers_ever, writers_ever })
}

fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
