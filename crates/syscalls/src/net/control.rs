//! Ancillary data: cmsg(3) as the guest lays it out, and [`Ancillary`].

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::socket::{
    AF_UNIX, Cmsghdr, MsgFlags, Msghdr, SCM_CREDENTIALS, SCM_MAX_FD, SCM_RIGHTS, SOL_SOCKET, Ucred, cmsg_align,
};
use moat_abi::{Errno, Result};
use moat_kernel::CurrentTask;
use moat_mm::UserAddr;
use moat_vfs::fd_table::OnExec;
use moat_vfs::socket::{Ancillary, ControlMessage, SocketCreds};
use moat_vfs::{Fd, OpenFile};
use zerocopy::{FromBytes, IntoBytes};

use super::{Sock, descriptor_limit};

/// Bytes of control data that one message may have (`net.core.optmem_max`).
const MOST: u64 = 128 * 1024;
const HEADER: usize = size_of::<Cmsghdr>();

/// Reads the control data of a message to send.
///
/// # Errors
/// ENOBUFS for too much of it; EINVAL for what is malformed or unknown; EBADF, EPERM, ESRCH; EFAULT.
pub(super) fn read(t: &CurrentTask, sock: Sock<'_>, header: &Msghdr) -> Result<Ancillary> {
    if header.msg_controllen > MOST {
        return Err(Errno::ENOBUFS);
    }
    let len = usize::try_from(header.msg_controllen).map_err(|_| Errno::ENOBUFS)?;
    let mut out = Ancillary::default();
    if len == 0 {
        return Ok(out);
    }
    // At most `MOST` bytes, as checked above.
    let mut bytes = vec![0; len];
    t.mm().read_bytes(UserAddr::new(header.msg_control), &mut bytes)?;
    let family = sock.socket().kind().family;
    let mut rest = &bytes[..];
    while let Ok((cmsg, _)) = Cmsghdr::read_from_prefix(rest) {
        let len = usize::try_from(cmsg.cmsg_len).map_err(|_| Errno::EINVAL)?;
        // A length that is less than its header, or beyond the buffer.
        let data = rest.get(HEADER..len).ok_or(Errno::EINVAL)?;
        match (cmsg.cmsg_level, cmsg.cmsg_type) {
            (SOL_SOCKET, SCM_RIGHTS) if family == AF_UNIX => read_rights(t, data, &mut out.files)?,
            (SOL_SOCKET, SCM_CREDENTIALS) if family == AF_UNIX => out.creds = Some(read_creds(t, data)?),
            (SOL_SOCKET, _) if family == AF_UNIX => return Err(Errno::EINVAL),
            // Others are the family's to understand.
            (level, kind) => out.other.push(ControlMessage { level, kind, data: data.to_vec() }),
        }
        // Each begins at a multiple of eight.
        rest = rest.get(cmsg_align(len)..).unwrap_or_default();
    }
    Ok(out)
}

fn read_rights(t: &CurrentTask, data: &[u8], files: &mut Vec<Arc<OpenFile>>) -> Result<()> {
    let fds = data.chunks_exact(4).map(|b| Fd(i32::from_ne_bytes([b[0], b[1], b[2], b[3]])));
    // Over all SCM_RIGHTS of the message together.
    if files.len() + fds.len() > SCM_MAX_FD {
        return Err(Errno::EINVAL);
    }
    for fd in fds {
        files.push(t.fds().get_any(fd)?);
    }
    Ok(())
}

/// Credentials that the sender claims, checked (`scm_check_creds`).
fn read_creds(t: &CurrentTask, data: &[u8]) -> Result<SocketCreds> {
    let claim = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
    let c = t.creds();
    let uid = c.user_ns.kernel_uid(claim.uid).ok_or(Errno::EINVAL)?;
    let gid = c.user_ns.kernel_gid(claim.gid).ok_or(Errno::EINVAL)?;
    // One's own ids need no privilege, those of others one each.
    let own = claim.pid == t.tgid();
    let fine = (own || c.has_cap_in(&t.pid_ns().user_ns, Cap::SYS_ADMIN))
        && ([c.uid, c.euid, c.suid].contains(&uid) || c.has_cap(Cap::SETUID))
        && ([c.gid, c.egid, c.sgid].contains(&gid) || c.has_cap(Cap::SETGID));
    if !fine {
        return Err(Errno::EPERM);
    }
    let pid = if own { t.group.pid().clone() } else { t.pid_ns().lookup(claim.pid).ok_or(Errno::ESRCH)? };
    Ok(SocketCreds { process: Some(pid), uid, gid })
}

/// Credentials as the task sees them.
pub(super) fn show_creds(t: &CurrentTask, creds: &SocketCreds) -> Ucred {
    let pid = creds.process.as_ref();
    let ns = &t.creds().user_ns;
    Ucred { pid: pid.map_or(0, |p| p.number_in(&t.pid_ns())), uid: ns.show_uid(creds.uid), gid: ns.show_gid(creds.gid) }
}

/// What of the control data has been written.
pub(super) struct Written {
    pub(super) len: u64,
    pub(super) flags: MsgFlags,
}

/// The guest's control buffer while it is filled (`put_cmsg`).
struct Room {
    at: u64,
    left: usize,
    written: Written,
}

impl Room {
    /// Writes one message, cut to the room there is.
    fn put(&mut self, t: &CurrentTask, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        // No room even for a header: the receiver learns by MSG_CTRUNC that something was dropped.
        if self.left < HEADER {
            self.written.flags |= MsgFlags::CTRUNC;
            return Ok(());
        }
        let fits = data.len().min(self.left.saturating_sub(HEADER));
        if fits < data.len() {
            self.written.flags |= MsgFlags::CTRUNC;
        }
        let header = Cmsghdr { cmsg_len: (HEADER + fits) as u64, cmsg_level: level, cmsg_type: kind };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(data.get(..fits).unwrap_or_default());
        t.mm().write_bytes(UserAddr::new(self.at), &bytes)?;
        // By the whole length, as Linux counts it, even if the data was cut.
        self.advance(data.len());
        Ok(())
    }

    fn advance(&mut self, data_len: usize) {
        let n = cmsg_align(HEADER + data_len).min(self.left);
        self.at = self.at.saturating_add(n as u64);
        self.left = self.left.saturating_sub(n);
        self.written.len += n as u64;
    }
}

/// Writes what came with a message, and installs the files that fit.
///
/// # Errors
/// EFAULT.
pub(super) fn write(t: &CurrentTask, header: &Msghdr, ancillary: Ancillary, flags: MsgFlags) -> Result<Written> {
    let left = usize::try_from(header.msg_controllen).unwrap_or(usize::MAX);
    let left = if header.msg_control == 0 { 0 } else { left };
    let mut room = Room { at: header.msg_control, left, written: Written { len: 0, flags: MsgFlags::empty() } };
    // In the order of Linux: what the protocol adds, then credentials, then files.
    for m in &ancillary.other {
        room.put(t, m.level, m.kind, &m.data)?;
    }
    if let Some(c) = &ancillary.creds {
        room.put(t, SOL_SOCKET, SCM_CREDENTIALS, show_creds(t, c).as_bytes())?;
    }
    if !ancillary.files.is_empty() {
        write_rights(t, &mut room, ancillary.files, OnExec::close_if(flags.contains(MsgFlags::CMSG_CLOEXEC)))?;
    }
    Ok(room.written)
}

fn write_rights(t: &CurrentTask, room: &mut Room, files: Vec<Arc<OpenFile>>, on_exec: OnExec) -> Result<()> {
    let count = files.len();
    let fits = room.left.saturating_sub(HEADER) / 4;
    let mut fds = Vec::new();
    for file in files.into_iter().take(fits) {
        match t.fds().install(file, descriptor_limit(t), on_exec) {
            Ok(fd) => fds.push(fd),
            Err(_) => break,
        }
    }
    // Files beyond the room or the descriptor limit are closed by being dropped here.
    if fds.len() < count {
        room.written.flags |= MsgFlags::CTRUNC;
    }
    if fds.is_empty() {
        return Ok(());
    }
    let mut bytes =
        Cmsghdr { cmsg_len: (HEADER + fds.len() * 4) as u64, cmsg_level: SOL_SOCKET, cmsg_type: SCM_RIGHTS }
            .as_bytes()
            .to_vec();
    bytes.extend(fds.iter().flat_map(|fd| fd.0.to_ne_bytes()));
    if let Err(e) = t.mm().write_bytes(UserAddr::new(room.at), &bytes) {
        for fd in fds {
            // Nobody knows the numbers: they are taken back.
            let _ = t.fds().close(fd);
        }
        return Err(e);
    }
    room.advance(fds.len() * 4);
    Ok(())
}
