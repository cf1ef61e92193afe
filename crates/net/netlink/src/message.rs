//! Messages of netlink(7) and their attributes.

use moat_abi::netlink as nl;
use moat_abi::netlink::{Nlmsgerr, Nlmsghdr, Rtattr};
use moat_abi::{Errno, Result};
use zerocopy::{FromBytes, IntoBytes};

/// The bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_FLAGS: u16 = 0xc000;

/// Whom a message answers: its sequence number, and the port that it goes to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answering {
    pub(crate) seq: u32,
    pub(crate) port: u32,
}

/// A message under construction.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, to: Answering) -> Message {
        let header =
            Nlmsghdr { nlmsg_len: 0, nlmsg_type: kind, nlmsg_flags: flags, nlmsg_seq: to.seq, nlmsg_pid: to.port };
        Message { bytes: header.as_bytes().to_vec() }
    }

    pub(crate) fn body(mut self, bytes: &[u8]) -> Message {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(nl::align(self.bytes.len()), 0);
        self
    }

    pub(crate) fn attr(self, kind: u16, value: &[u8]) -> Message {
        let len = u16::try_from(size_of::<Rtattr>().saturating_add(value.len())).unwrap_or(u16::MAX);
        let head = Rtattr { rta_len: len, rta_type: kind };
        self.body(&[head.as_bytes(), value].concat())
    }

    pub(crate) fn attr_u32(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A string with its zero byte.
    pub(crate) fn attr_text(self, kind: u16, text: &str) -> Message {
        self.attr(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// An attribute that holds another one: a string.
    pub(crate) fn attr_nested_text(self, kind: u16, inner: u16, text: &str) -> Message {
        let value = Message { bytes: Vec::new() }.attr_text(inner, text);
        self.attr(kind, &value.bytes)
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes
    }
}

/// NLMSG_ERROR: an error with the request's header, or an acknowledgement.
pub(crate) fn error(request: &Nlmsghdr, to: Answering, errno: Option<Errno>) -> Vec<u8> {
    let body = Nlmsgerr { error: errno.map_or(0, Errno::raw).wrapping_neg(), msg: *request };
    Message::new(nl::NLMSG_ERROR, nl::NLM_F_CAPPED, to).body(body.as_bytes()).finish()
}

/// NLMSG_DONE: a dump's end.
pub(crate) fn done(to: Answering) -> Vec<u8> {
    Message::new(nl::NLMSG_DONE, nl::NLM_F_MULTI, to).body(&0i32.to_ne_bytes()).finish()
}

/// The attributes of a request: type and value. One that is cut short ends the list.
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let (head, _) = Rtattr::read_from_prefix(self.0).ok()?;
        let len = usize::from(head.rta_len);
        let value = self.0.get(size_of::<Rtattr>()..len)?;
        self.0 = self.0.get(nl::align(len)..).unwrap_or_default();
        Some((head.rta_type & !TYPE_FLAGS, value))
    }
}

/// The fixed part of a request and the attributes behind it.
///
/// # Errors
/// EINVAL if it is too short.
pub(crate) fn parse<T: FromBytes>(body: &[u8]) -> Result<(T, Attributes<'_>)> {
    let (head, _) = T::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    Ok((head, Attributes(body.get(nl::align(size_of::<T>())..).unwrap_or_default())))
}

/// A number of 32 bits.
///
/// # Errors
/// ERANGE for another length (`nla_validate`).
pub(crate) fn number(value: &[u8]) -> Result<u32> {
    value.first_chunk().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::ERANGE)
}

/// A string up to its zero byte.
pub(crate) fn text(value: &[u8]) -> &[u8] {
    value.split(|b| *b == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_lie_about_their_length_end_the_list() {
        let good = Message::new(1, 0, Answering::default()).attr_u32(7, 9).attr_text(8, "lo").finish();
        let all: Vec<_> = Attributes(&good[16..]).collect();
        assert_eq!(all, [(7, &9u32.to_ne_bytes()[..]), (8, b"lo\0")]);
        for len in [0u16, 3, 200] {
            let mut bad = good[16..].to_vec();
            bad[..2].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(Attributes(&bad).count(), 0);
        }
        assert!(parse::<nl::Rtmsg>(&[0; 11]).is_err());
    }
}
