//! UNIX sockets (`struct unix_diag_msg`).

use moat_abi::netlink as nl;
use moat_abi::netlink::{UnixDiagMsg, UnixDiagReq};
use moat_abi::socket::{AF_UNIX, TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN};
use moat_abi::{Errno, Result};
use moat_net_unix::inspect::{UnixInfo, list};
use zerocopy::IntoBytes;

use super::{identity, wants_state};
use crate::message::{Answering, Message, parse};
use crate::socket::{Reply, Request};

fn state(s: &UnixInfo) -> u8 {
    match (s.listening, s.connected) {
        (true, _) => TCP_LISTEN,
        (_, true) => TCP_ESTABLISHED,
        _ => TCP_CLOSE,
    }
}

/// Answers a request about UNIX sockets.
///
/// # Errors
/// EINVAL; ENOENT for a socket that is not there.
pub(super) fn answer(request: &Request<'_>) -> Result<Reply> {
    let (wanted, _) = parse::<UnixDiagReq>(request.body)?;
    let to = request.to;
    let sockets = list(request.net);
    if request.is_dump() {
        let show = move |s: moat_net_unix::inspect::Listed| {
            let s = s.inspect()?;
            wants_state(wanted.udiag_states, state(&s)).then(|| message((nl::NLM_F_MULTI, to), &s, wanted.udiag_show))
        };
        return Ok(Reply::Dump(Box::new(sockets.into_iter().filter_map(show))));
    }
    // By the number that stat(2) of its descriptor shows.
    let found = sockets.into_iter().filter_map(|s| s.inspect()).find(|s| identity(s.ino).0 == wanted.udiag_ino);
    let found = found.ok_or(Errno::ENOENT)?;
    Ok(Reply::Messages(vec![message((0, to), &found, wanted.udiag_show)]))
}

fn message((flags, to): (u16, Answering), s: &UnixInfo, show: u32) -> Vec<u8> {
    let (udiag_ino, udiag_cookie) = identity(s.ino);
    let body = UnixDiagMsg {
        udiag_family: u8::try_from(AF_UNIX).unwrap_or(0),
        udiag_type: u8::try_from(s.socket_type).unwrap_or(0),
        udiag_state: state(s),
        udiag_ino,
        udiag_cookie,
        ..UnixDiagMsg::default()
    };
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut m = Message::new(nl::SOCK_DIAG_BY_FAMILY, flags, to).body(body.as_bytes());
    if show & nl::UDIAG_SHOW_NAME != 0
        && let Some(name) = &s.name
    {
        m = m.attr(nl::UNIX_DIAG_NAME, name);
    }
    if show & nl::UDIAG_SHOW_PEER != 0
        && let Some(peer) = s.peer
    {
        m = m.attr_u32(nl::UNIX_DIAG_PEER, identity(peer).0);
    }
    if show & nl::UDIAG_SHOW_RQLEN != 0 {
        m = m.attr(nl::UNIX_DIAG_RQLEN, [size(s.receive_queue), size(s.send_queue)].as_bytes());
    }
    if show & nl::UDIAG_SHOW_UID != 0 {
        m = m.attr_u32(nl::UNIX_DIAG_UID, s.uid);
    }
    m.attr(nl::UNIX_DIAG_SHUTDOWN, &[s.shutdown]).finish()
}
