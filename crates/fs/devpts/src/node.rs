//! [`Node`]: the attributes of a device node of devpts.

use moat_abi::fs::{FileType, S_IALLUGO};
use moat_abi::stat::DeviceId;
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};
use moat_vfs::clock::now;
use moat_vfs::inode::{Metadata, SetAttr, SetTime};

/// What chmod(2), chown(2) and utimensat(2) change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeAttributes {
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

struct Changing {
    attributes: NodeAttributes,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
}

/// A device node.
pub(crate) struct Node {
    dev: DeviceId,
    ino: u64,
    rdev: DeviceId,
    state: Mutex<Changing>,
}

/// Times of use are kept to this many seconds, so that they tell nobody the rhythm of what is typed
/// (`tty_update_time`).
const TIME_STEP_SECONDS: i64 = 8;

impl Node {
    pub(crate) fn new(dev: DeviceId, ino: u64, rdev: DeviceId, attributes: NodeAttributes) -> Node {
        let t = now();
        let state = Changing { attributes, atime: t, mtime: t, ctime: t };
        Node { dev, ino, rdev, state: Mutex::new(LockClass::Inode, state) }
    }

    pub(crate) fn metadata(&self) -> Metadata {
        let s = self.state.lock();
        Metadata {
            dev: self.dev,
            ino: self.ino,
            mode: FileType::CharDevice.mode_bits() | s.attributes.mode,
            nlink: 1,
            uid: s.attributes.uid,
            gid: s.attributes.gid,
            rdev: self.rdev,
            blksize: 1024,
            atime: s.atime,
            mtime: s.mtime,
            ctime: s.ctime,
            ..Metadata::default()
        }
    }

    pub(crate) fn set_attr(&self, change: &SetAttr) -> Result<()> {
        // O_TRUNC, which devices ignore, asks for 0.
        if change.size.is_some_and(|s| s != 0) {
            return Err(Errno::EINVAL);
        }
        let t = now();
        let time = |wanted| if let SetTime::At(at) = wanted { at } else { t };
        let mut s = self.state.lock();
        let a = &mut s.attributes;
        a.mode = change.mode.map_or(a.mode, |m| m & S_IALLUGO);
        a.uid = change.uid.unwrap_or(a.uid);
        a.gid = change.gid.unwrap_or(a.gid);
        s.atime = change.atime.map_or(s.atime, time);
        s.mtime = change.mtime.map_or(s.mtime, time);
        s.ctime = t;
        Ok(())
    }

    /// Sets the times of the last access, modification and change.
    pub(crate) fn set_times(&self, times: [(i64, i64); 3]) {
        let [atime, mtime, ctime] = times.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
        let mut s = self.state.lock();
        (s.atime, s.mtime, s.ctime) = (atime, mtime, ctime);
    }

    /// Notes a read.
    pub(crate) fn note_read(&self) {
        let t = now();
        let mut s = self.state.lock();
        if t.tv_sec.saturating_sub(s.atime.tv_sec) >= TIME_STEP_SECONDS {
            s.atime = t;
        }
    }

    /// Notes a write.
    pub(crate) fn note_write(&self) {
        let t = now();
        let mut s = self.state.lock();
        if t.tv_sec.saturating_sub(s.mtime.tv_sec) >= TIME_STEP_SECONDS {
            s.mtime = t;
        }
    }
}
