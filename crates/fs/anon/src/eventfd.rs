//! eventfd(2): a counter.

use std::sync::Arc;

use moat_abi::fs::OpenFlags;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::state::OpenFileKind;
use moat_image::{ImageError, Refusal};
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::persist::SaveFiles;
use moat_vfs::{Credentials, File, OpenFile, Seekable, Vfs};

/// What a read takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The whole count.
    All,
    /// One (EFD_SEMAPHORE).
    One,
}

/// The counter.
pub struct EventFd {
    count: Mutex<u64>,
    take: Take,
    queue: WaitQueue,
}

impl EventFd {
    /// Opens a new counter.
    #[must_use]
    pub fn open(vfs: &Vfs, initial: u32, take: Take, flags: OpenFlags, creds: &Arc<Credentials>) -> Arc<OpenFile> {
        let count = Mutex::new(LockClass::Stream, u64::from(initial));
        let file = Arc::new(EventFd { count, take, queue: WaitQueue::new() });
        vfs.open_anon("[eventfd]", file, flags | OpenFlags::RDWR, creds)
    }
}

impl EventFd {
    /// A counter out of an image.
    ///
    /// # Errors
    /// A count that it can't have.
    pub fn restore(
        vfs: &Vfs,
        count: u64,
        take: Take,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> std::result::Result<Arc<OpenFile>, ImageError> {
        if count == u64::MAX {
            return Err(ImageError::state("the count of an eventfd"));
        }
        let count = Mutex::new(LockClass::Stream, count);
        let file = Arc::new(EventFd { count, take, queue: WaitQueue::new() });
        Ok(vfs.open_anon("[eventfd]", file, flags, creds))
    }
}

impl File for EventFd {
    fn save(&self, _f: &OpenFile, _saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        Ok(OpenFileKind::EventFd { count: *self.count.lock(), semaphore: self.take == Take::One })
    }

    fn seekable(&self) -> Seekable {
        Seekable::Noop
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        let to = buf.get_mut(..8).ok_or(Errno::EINVAL)?;
        let value = {
            let mut count = self.count.lock();
            if *count == 0 {
                return Err(Errno::EAGAIN);
            }
            let value = if self.take == Take::One { 1 } else { *count };
            *count -= value;
            value
        };
        to.copy_from_slice(&value.to_ne_bytes());
        self.queue.wake(PollEvents::WRITE_READY);
        Ok(8)
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        let bytes = buf.first_chunk::<8>().ok_or(Errno::EINVAL)?;
        let value = u64::from_ne_bytes(*bytes);
        // The count never reaches this: a write of it could never be done (eventfd(2)).
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        {
            let mut count = self.count.lock();
            *count = count.checked_add(value).filter(|&c| c != u64::MAX).ok_or(Errno::EAGAIN)?;
        }
        self.queue.wake(PollEvents::READ_READY);
        Ok(8)
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        let count = *self.count.lock();
        let mut events = PollEvents::empty();
        if count > 0 {
            events |= PollEvents::IN;
        }
        // Room for 1 at least.
        if count < u64::MAX - 1 {
            events |= PollEvents::OUT;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self, _f: &OpenFile) -> String {
        let semaphore = u32::from(self.take == Take::One);
        format!("eventfd-count: {:16x}\neventfd-semaphore: {semaphore}\n", *self.count.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_limits() {
        let vfs = moat_vfs::vfs::fake::vfs(moat_vfs::Registry::default());
        let creds = Arc::new(Credentials::root(moat_identity::UserNamespace::root()));
        let f = EventFd::open(&vfs, 2, Take::One, OpenFlags::empty(), &creds);
        let mut buf = [0; 8];
        assert_eq!(f.read(&mut buf[..7]), Err(Errno::EINVAL));
        assert_eq!((f.read(&mut buf), buf), (Ok(8), 1u64.to_ne_bytes()));
        assert_eq!((f.read(&mut buf), f.read(&mut buf)), (Ok(8), Err(Errno::EAGAIN)));
        assert_eq!(f.write(&u64::MAX.to_ne_bytes()), Err(Errno::EINVAL));
        assert_eq!(f.write(&(u64::MAX - 1).to_ne_bytes()), Ok(8));
        assert_eq!(f.poll(), PollEvents::IN);
        assert_eq!(f.write(&1u64.to_ne_bytes()), Err(Errno::EAGAIN));
    }
}
