//! The sockets of an image.

use std::sync::Arc;

use moat_image::ImageError;
use moat_image::state::SocketRef;
use moat_vfs::OpenFile;
use moat_vfs::socket::{RestoreSockets, RestoredSockets, Socket};

use crate::raw::RawSocket;
use crate::tcp::restore::Restored as TcpSockets;
use crate::udp::UdpSocket;

struct Restored<'a> {
    tcp: TcpSockets<'a>,
    /// Those that no open file has yet.
    udp: Vec<Option<Arc<UdpSocket>>>,
    raw: Vec<Option<Arc<RawSocket>>>,
}

/// The sockets of both families.
///
/// # Errors
/// What is wrong with one.
pub(crate) fn restore<'a>(request: &RestoreSockets<'a>) -> Result<Box<dyn RestoredSockets + 'a>, ImageError> {
    let udp = request.state.udp_sockets.iter().map(|saved| UdpSocket::restore(request, saved).map(Some));
    let raw = request.state.raw_sockets.iter().map(|saved| RawSocket::restore(request, saved).map(Some));
    let (udp, raw) = (udp.collect::<Result<_, _>>()?, raw.collect::<Result<_, _>>()?);
    Ok(Box::new(Restored { tcp: TcpSockets::make(request)?, udp, raw }))
}

impl RestoredSockets for Restored<'_> {
    fn take(&mut self, socket: SocketRef) -> Result<Arc<dyn Socket>, ImageError> {
        match socket {
            SocketRef::Tcp(index) => Ok(self.tcp.take(index)?),
            SocketRef::Udp(index) => {
                let socket = usize::try_from(index).ok().and_then(|at| self.udp.get_mut(at)).and_then(Option::take);
                Ok(socket.ok_or_else(|| ImageError::state(format!("UDP socket {index} is not there")))?)
            }
            SocketRef::Raw(index) => {
                let socket = usize::try_from(index).ok().and_then(|at| self.raw.get_mut(at)).and_then(Option::take);
                Ok(socket.ok_or_else(|| ImageError::state(format!("raw socket {index} is not there")))?)
            }
            SocketRef::Unix(_) | SocketRef::Netlink(_) | SocketRef::Packet(_) => {
                Err(ImageError::state("a socket of another family among those of the internet"))
            }
        }
    }

    fn fill(&self, _files: &[Arc<OpenFile>]) -> Result<(), ImageError> {
        // It would keep its port, or its groups, for ever.
        if self.udp.iter().any(Option::is_some) || self.raw.iter().any(Option::is_some) {
            return Err(ImageError::state("a UDP or raw socket that nobody has open"));
        }
        self.tcp.fill()
    }
}
