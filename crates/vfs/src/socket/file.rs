//! [`SocketFile`]: a socket as an open file.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use moat_abi::fs::{FileType, OpenFlags, S_IALLUGO};
use moat_abi::socket::MsgFlags;
use moat_abi::time::Timespec;
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::NetNamespace;
use moat_image::Refusal;
use moat_image::state::{OpenFileKind, SocketFileState};
use moat_mm::Mappable;
use moat_sync::{LockClass, Mutex, WaitQueue};

use super::{BufferSide, Outgoing, Socket};
use crate::anon::Pseudo;
use crate::caller::Caller;
use crate::clock::now;
use crate::cred::Credentials;
use crate::file::{File, SaveFiles};
use crate::inode::{Inode, Metadata, OpenContext, SetAttr};
use crate::open_file::OpenFile;
use crate::registry::DeviceIoctl;
use crate::vfs::Vfs;

/// The file around a socket: system calls find the socket of a descriptor by [`SocketFile::of`].
pub struct SocketFile {
    socket: Arc<dyn Socket>,
    /// The namespace that it was made in.
    net: Arc<NetNamespace>,
    /// What answers ioctls about network devices, which sockets of all families take.
    device_ioctls: Option<DeviceIoctl>,
}

impl SocketFile {
    /// The socket that a description is of, if it is of one. For all other files this is no more than a question.
    #[must_use]
    pub fn of(file: &OpenFile) -> Option<&SocketFile> {
        if file.file().is_socket() { file.downcast() } else { None }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.socket
    }

    /// The network namespace that it was made in.
    #[must_use]
    pub fn net(&self) -> &Arc<NetNamespace> {
        &self.net
    }

    /// The socket, as its concrete type.
    #[must_use]
    pub fn downcast<T: Socket>(&self) -> Option<&T> {
        let any: &dyn Any = &*self.socket;
        any.downcast_ref()
    }
}

impl File for SocketFile {
    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        // A read of nothing takes no message.
        if buf.is_empty() {
            return Ok(0);
        }
        self.socket.receive(buf, MsgFlags::empty()).map(|m| m.len)
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        self.socket.send(None, &mut Outgoing::plain(buf))
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        self.socket.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.socket.core().queue())
    }

    fn timeout(&self, events: PollEvents) -> Option<Duration> {
        // By the event that a call waits for it is known which limit is its own.
        let side = if events.intersects(PollEvents::READ_READY) { BufferSide::Receive } else { BufferSide::Send };
        self.socket.core().timeout(side)
    }

    fn ioctl(&self, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        match self.socket.ioctl(caller, cmd, arg) {
            // First the socket's own commands, then those about devices.
            Err(Errno::ENOTTY) => {
                self.device_ioctls.map_or(Err(Errno::ENOTTY), |answer| answer(caller, &self.net, cmd, arg))
            }
            done => done,
        }
    }

    fn mappable(self: Arc<Self>, _f: &OpenFile) -> Result<Arc<dyn Mappable>> {
        self.socket.mappable()
    }

    fn is_socket(&self) -> bool {
        true
    }

    fn release(&self, _f: &OpenFile) {
        self.socket.release();
    }

    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        // First of all: what it is bound to in another namespace means nothing here.
        saver.network(&self.net)?;
        let name = || format!("socket:[{}]", self.socket.core().ino());
        let socket = self.socket.save(saver).map_err(|refusal| refusal.at(name()))?;
        let meta = f.inode().metadata().map_err(|_| Refusal::new(name()))?;
        // A socket has one time for all three.
        let time = (meta.mtime.tv_sec, meta.mtime.tv_nsec);
        let mode = meta.mode & S_IALLUGO;
        Ok(OpenFileKind::Socket(SocketFileState { mode, uid: meta.uid, gid: meta.gid, time, socket }))
    }
}

struct Attr {
    mode: u32,
    uid: u32,
    gid: u32,
    time: Timespec,
}

struct SocketInode {
    ino: u64,
    attr: Mutex<Attr>,
}

impl Inode for SocketInode {
    fn metadata(&self) -> Result<Metadata> {
        let a = self.attr.lock();
        Ok(Metadata {
            dev: Pseudo::Socket.dev(),
            ino: self.ino,
            mode: FileType::Socket.mode_bits() | a.mode,
            nlink: 1,
            uid: a.uid,
            gid: a.gid,
            blksize: 4096,
            atime: a.time,
            mtime: a.time,
            ctime: a.time,
            ..Metadata::default()
        })
    }

    fn file_type(&self) -> FileType {
        FileType::Socket
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        if change.size.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut a = self.attr.lock();
        a.mode = change.mode.map_or(a.mode, |m| m & S_IALLUGO);
        a.uid = change.uid.unwrap_or(a.uid);
        a.gid = change.gid.unwrap_or(a.gid);
        Ok(())
    }

    /// A socket can't be opened through /proc/PID/fd.
    fn open(self: Arc<Self>, _ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
}

impl Vfs {
    /// Opens a new socket of the namespace `net` as a file; of `flags`, NONBLOCK counts.
    #[must_use]
    pub fn open_socket(
        &self,
        socket: Arc<dyn Socket>,
        net: &Arc<NetNamespace>,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> Arc<OpenFile> {
        let attr = Attr { mode: 0o777, uid: creds.fsuid, gid: creds.fsgid, time: now() };
        self.open_socket_as(socket, net, attr, flags, creds)
    }

    /// Opens a socket out of an image as the file that it was.
    #[must_use]
    pub fn open_restored_socket(
        &self,
        socket: Arc<dyn Socket>,
        net: &Arc<NetNamespace>,
        saved: &SocketFileState,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> Arc<OpenFile> {
        let time = Timespec { tv_sec: saved.time.0, tv_nsec: saved.time.1 };
        let attr = Attr { mode: saved.mode & S_IALLUGO, uid: saved.uid, gid: saved.gid, time };
        self.open_socket_as(socket, net, attr, flags, creds)
    }

    fn open_socket_as(
        &self,
        socket: Arc<dyn Socket>,
        net: &Arc<NetNamespace>,
        attr: Attr,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> Arc<OpenFile> {
        let ino = socket.core().ino();
        let inode = Arc::new(SocketInode { ino, attr: Mutex::new(LockClass::Inode, attr) });
        let path = self.pseudo_path(Pseudo::Socket, inode, format!("socket:[{ino}]").as_bytes());
        // A socket can be read and written whatever socket(2) was given.
        let flags = (flags & OpenFlags::NONBLOCK) | OpenFlags::RDWR;
        let file = SocketFile { socket, net: net.clone(), device_ioctls: self.registry.device_ioctls() };
        OpenFile::new(Arc::new(file), path, flags, creds.clone())
    }
}
