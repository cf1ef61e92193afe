//! [`NodeMaker`]: asks the process that may make nodes of devices ([`moat_stub::node_maker`]).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_stub::node_maker::{NAME_BYTES, Request};
use moat_sync::{Condvar, LockClass, Mutex};
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The sandbox's or the gofer's end of the socket; one request at a time.
pub struct NodeMaker {
    socket: Mutex<Socket>,
    given_back: Condvar,
}

enum Socket {
    Idle(OwnedFd),
    InUse,
    /// The process is gone, or makes no sense.
    Lost,
}

impl NodeMaker {
    /// Speaks over a connected SOCK_SEQPACKET socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> NodeMaker {
        NodeMaker { socket: Mutex::new(LockClass::Leaf, Socket::Idle(socket)), given_back: Condvar::new() }
    }

    /// Makes a node with these type and permission bits.
    ///
    /// # Errors
    /// EPERM if the process is gone, or the host does not let it; those of mknod(2).
    pub(super) fn make(&self, dir: BorrowedFd<'_>, name: &[u8], mode: u32, device: DeviceId) -> Result<()> {
        // A request has a fixed size.
        if name.len() >= NAME_BYTES {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut bytes = Vec::with_capacity(size_of::<Request>());
        for word in [mode, device.major, device.minor] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(name);
        bytes.resize(size_of::<Request>(), 0);
        let socket = self.take()?;
        let answer = ask(&socket, &bytes, dir);
        // After a failure, answers might belong to other requests.
        *self.socket.lock() = if answer.is_ok() { Socket::Idle(socket) } else { Socket::Lost };
        self.given_back.notify_one();
        match answer {
            Ok(0) => Ok(()),
            Ok(errno) => Err(Errno::from_raw(errno)),
            Err(error) => {
                tracing::debug!(%error, "the node maker is gone");
                Err(Errno::EPERM)
            }
        }
    }

    fn take(&self) -> Result<OwnedFd> {
        let mut state = self.socket.lock();
        loop {
            match std::mem::replace(&mut *state, Socket::InUse) {
                Socket::Idle(socket) => return Ok(socket),
                Socket::InUse => self.given_back.wait(&mut state),
                Socket::Lost => {
                    *state = Socket::Lost;
                    // Each who waits finds it lost, and wakes the next.
                    self.given_back.notify_one();
                    return Err(Errno::EPERM);
                }
            }
        }
    }
}

/// Sends a request; the errno of the answer.
fn ask(socket: &OwnedFd, request: &[u8], dir: BorrowedFd<'_>) -> std::io::Result<i32> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let fds = [dir.as_fd()];
    rustix::io::retry_on_intr(|| {
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(socket, &[IoSlice::new(request)], &mut control, SendFlags::NOSIGNAL)
    })?;
    let mut answer = [0; 4];
    let got = rustix::io::retry_on_intr(|| {
        let (mut nothing, flags) = (RecvAncillaryBuffer::default(), RecvFlags::CMSG_CLOEXEC);
        recvmsg(socket, &mut [IoSliceMut::new(&mut answer)], &mut nothing, flags)
    })?;
    // Nothing at all says that the node maker is gone.
    if got.bytes == 4 { Ok(i32::from_ne_bytes(answer)) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use moat_host::mounts::{MountAttributes, with_attributes};
    use rustix::fs::{CWD, Mode, OFlags};
    use rustix::mount::{OpenTreeFlags, open_tree};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    const CHAR: u32 = 0o020_000;
    const NULL: DeviceId = DeviceId::new(1, 3);

    fn start() -> (NodeMaker, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("socketpair");
        let process = moat_host::spawn::run_image(moat_stub::NODE_MAKER, c"moat-nodes", &theirs).expect("a node maker");
        (NodeMaker::new(ours), process)
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("moat-nodes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("mkdir");
        path
    }

    #[test]
    fn nodes_are_made_where_nobody_can_open_them() {
        let (maker, process) = start();
        let path = scratch("made");
        let plain = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open");
        let make = |name: &[u8], mode, device| maker.make(plain.as_fd(), name, mode, device);
        if !rustix::process::geteuid().is_root() {
            assert_eq!(make(b"null", CHAR | 0o600, NULL), Err(Errno::EPERM), "an ordinary user has no node maker");
            return;
        }
        assert_eq!(make(b"null", CHAR | 0o666, NULL), Err(Errno::EPERM), "devices could be opened in that directory");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, &path, flags).expect("open_tree");
        let tree = with_attributes(tree, MountAttributes::NODEV).expect("nodev");
        let make = |name: &[u8], mode, device| maker.make(tree.as_fd(), name, mode, device);
        assert_eq!(make(b"null", CHAR | 0o640, NULL), Ok(()));
        assert_eq!(make(b"null", CHAR | 0o640, NULL), Err(Errno::EEXIST));
        let made = fs::metadata(path.join("null")).expect("metadata");
        assert_eq!((made.mode(), made.rdev()), (CHAR | 0o640, rustix::fs::makedev(1, 3)));
        assert_eq!((made.uid(), made.gid()), (65534, 65534));
        let opened = rustix::fs::openat(&tree, c"null", OFlags::RDWR | OFlags::NOFOLLOW, Mode::empty());
        assert_eq!(opened.err(), Some(rustix::io::Errno::ACCESS));

        assert_eq!(make(&[b'n'; NAME_BYTES - 1], CHAR, DeviceId::new(0xfff, 0xf_ffff)), Ok(()));
        assert_eq!(make(&[b'n'; NAME_BYTES], CHAR, NULL), Err(Errno::ENAMETOOLONG));
        for name in [&b""[..], b".", b"..", b"a/b", b"/x", b"../x"] {
            assert_eq!(make(name, CHAR | 0o600, NULL), Err(Errno::EINVAL), "{name:?}");
        }
        for mode in [0o600, 0o100_600, 0o010_600, 0o040_700, CHAR | 0o4600, CHAR | 0x10_0000] {
            assert_eq!(make(b"other", mode, NULL), Err(Errno::EINVAL), "{mode:o}");
        }
        assert_eq!(fs::read_dir(&path).expect("list").count(), 2);

        // It ends when nobody can ask it any more.
        drop(maker);
        let mut fds = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&limit)), Ok(1));
        fs::remove_dir_all(&path).expect("clean");
    }

    #[test]
    fn what_makes_no_sense_ends_it() {
        let path = scratch("nonsense");
        let dir = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open");
        for length in [0, 1, size_of::<Request>() - 1, size_of::<Request>() + 1] {
            let (maker, _process) = start();
            let socket = maker.take().expect("a socket");
            assert!(ask(&socket, &vec![b'x'; length], dir.as_fd()).is_err(), "{length} bytes");
        }
        fs::remove_dir_all(&path).expect("clean");
    }
}
