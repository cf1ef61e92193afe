//! What all sockets have into an image, and out of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use moat_identity::Counter;
use moat_image::ImageError;
use moat_image::state::SocketCoreState;
use moat_sync::{LockClass, Mutex, WaitQueue};

use super::{CoreFlags, Details, SocketCore};
use crate::socket::SocketMemory;

/// Inode numbers are below this.
const MAX_INO: u64 = 1 << 62;

/// The largest errno.
const MAX_ERRNO: i32 = 4095;

/// The largest buffer: what SO_SNDBUFFORCE gives, doubled.
const MAX_BUFFER: u64 = 1 << 29;

impl SocketCore {
    /// All of it, but for who waits.
    #[must_use]
    pub fn save(&self) -> SocketCoreState {
        let bytes = |n: &AtomicUsize| u64::try_from(n.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        // Copied, so that nothing else is done under the lock.
        let details = self.details.lock().clone();
        SocketCoreState {
            ino: self.ino,
            flags: self.flags.load(Ordering::Relaxed),
            error: self.error.load(Ordering::Acquire),
            lost: self.lost(),
            sndbuf: bytes(&self.sndbuf),
            rcvbuf: bytes(&self.rcvbuf),
            rcvlowat: bytes(&self.rcvlowat),
            rcvtimeo_ns: self.rcvtimeo_ns.load(Ordering::Relaxed),
            sndtimeo_ns: self.sndtimeo_ns.load(Ordering::Relaxed),
            linger: details.linger,
            linger_seconds_off: details.linger_seconds_off,
            priority: details.priority,
            mark: details.mark,
            device: details.device,
            busy_poll: details.busy_poll,
            pacing_rate: details.pacing_rate,
        }
    }

    /// The same in a new kernel.
    ///
    /// # Errors
    /// What setsockopt(2) would never have given.
    pub fn restore(
        saved: &SocketCoreState,
        inodes: &Arc<Counter>,
        memory: &Arc<SocketMemory>,
    ) -> Result<SocketCore, ImageError> {
        let wrong = |what: &str| ImageError::state(format!("a socket's {what}"));
        if saved.ino == 0 || saved.ino >= MAX_INO {
            return Err(wrong("inode number"));
        }
        let size = |bytes: u64| usize::try_from(bytes).ok().filter(|_| bytes <= MAX_BUFFER);
        let sndbuf = size(saved.sndbuf).ok_or_else(|| wrong("send buffer"))?;
        let rcvbuf = size(saved.rcvbuf).ok_or_else(|| wrong("receive buffer"))?;
        let rcvlowat = i32::try_from(saved.rcvlowat).ok().and_then(|n| usize::try_from(n).ok());
        // It comes out of a call as it is.
        if !(0..=MAX_ERRNO).contains(&saved.error) {
            return Err(wrong("error"));
        }
        // The one device whose name sockets take by hand.
        if !saved.device.is_empty() && saved.device != b"lo" {
            return Err(wrong("device"));
        }
        // No later socket may get the number that this one shows.
        inodes.skip(saved.ino);
        let details = Details {
            linger: saved.linger,
            linger_seconds_off: saved.linger_seconds_off,
            priority: saved.priority,
            mark: saved.mark,
            device: saved.device.clone(),
            busy_poll: saved.busy_poll,
            pacing_rate: saved.pacing_rate,
        };
        Ok(SocketCore {
            queue: Arc::new(WaitQueue::new()),
            inodes: inodes.clone(),
            memory: memory.clone(),
            ino: saved.ino,
            flags: AtomicU32::new(CoreFlags::from_bits_truncate(saved.flags).bits()),
            error: AtomicI32::new(saved.error),
            lost: AtomicU32::new(saved.lost),
            sndbuf: AtomicUsize::new(sndbuf),
            rcvbuf: AtomicUsize::new(rcvbuf),
            rcvlowat: AtomicUsize::new(rcvlowat.ok_or_else(|| wrong("low-water mark"))?),
            rcvtimeo_ns: AtomicU64::new(saved.rcvtimeo_ns),
            sndtimeo_ns: AtomicU64::new(saved.sndtimeo_ns),
            details: Mutex::new(LockClass::Leaf, details),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back_within_their_bounds() {
        let inodes = Arc::new(Counter::starting_at(7));
        let memory = SocketMemory::unlimited();
        let core = SocketCore::new(&inodes, &memory);
        core.set_error(moat_abi::Errno::EPIPE);
        core.count_lost();
        core.details.lock().linger = Some(3);
        let saved = core.save();
        let counter = Arc::new(Counter::starting_at(1));
        let again = SocketCore::restore(&saved, &counter, &memory).unwrap();
        assert_eq!((again.save(), counter.next()), (saved.clone(), saved.ino + 1));
        for wrong in [
            SocketCoreState { ino: u64::MAX, ..saved.clone() },
            SocketCoreState { sndbuf: 1 << 40, ..saved.clone() },
            SocketCoreState { error: -1, ..saved.clone() },
            SocketCoreState { device: b"eth0".to_vec(), ..saved },
        ] {
            assert!(SocketCore::restore(&wrong, &counter, &memory).is_err());
        }
    }
}
