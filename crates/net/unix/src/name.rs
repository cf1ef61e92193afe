//! [`Name`]: the name of a bound socket; [`Given`]: an address as a call gives it.

use moat_abi::socket::{AF_UNIX, UNIX_PATH_MAX};
use moat_abi::{Errno, Result};
use moat_vfs::Path;
use moat_vfs::inode::InodeKey;
use moat_vfs::socket::{SockAddr, family_of};

/// The type of a UNIX socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flavor {
    Stream,
    Datagram,
    SeqPacket,
}

/// Bytes before the path in `sockaddr_un`.
const PATH_OFFSET: usize = 2;

/// The name of a bound socket.
pub(crate) enum Name {
    /// A file. The path is held, so that no other file gets the inode's number.
    File { text: Vec<u8>, key: InodeKey, path: Path },
    /// An abstract name, with its leading zero byte.
    Abstract { text: Vec<u8>, flavor: Flavor },
    /// One that nobody is found by, out of an image: of an accepted socket, or of a file that is gone.
    Shown { text: Vec<u8> },
}

impl Name {
    /// As getsockname(2) gives it: a path with its zero byte.
    pub(crate) fn to_sockaddr(&self) -> SockAddr {
        let mut bytes = AF_UNIX.to_ne_bytes().to_vec();
        let text = self.text();
        bytes.extend_from_slice(text);
        // A path has its end; an abstract name begins with zero.
        if text.first() != Some(&0) {
            bytes.push(0);
        }
        SockAddr::new(&bytes)
    }

    /// Its bytes; an abstract one begins with zero.
    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Name::File { text, .. } | Name::Abstract { text, .. } | Name::Shown { text } => text,
        }
    }

    /// As /proc/net/unix shows it: zero bytes as `@`.
    pub(crate) fn shown(&self) -> Vec<u8> {
        // No path has a zero byte.
        self.text().iter().map(|b| if *b == 0 { b'@' } else { *b }).collect()
    }
}

/// An address as a call gives it.
pub(crate) enum Given<'a> {
    /// Nothing but the family.
    Unnamed,
    File(&'a [u8]),
    Abstract(&'a [u8]),
}

/// Decodes a `sockaddr_un` (`unix_validate_addr`).
///
/// # Errors
/// EINVAL.
pub(crate) fn parse(addr: &[u8]) -> Result<Given<'_>> {
    if family_of(addr) != Some(AF_UNIX) || addr.len() > PATH_OFFSET + UNIX_PATH_MAX {
        return Err(Errno::EINVAL);
    }
    let path = addr.get(PATH_OFFSET..).unwrap_or_default();
    Ok(match path.first() {
        None => Given::Unnamed,
        // All bytes count, zeros too.
        Some(0) => Given::Abstract(path),
        // A path ends at its zero byte, if it has one.
        Some(_) => Given::File(path.split(|b| *b == 0).next().unwrap_or_default()),
    })
}
