//! The sockets of an image.

use std::sync::Arc;

use moat_image::ImageError;
use moat_image::state::SocketRef;
use moat_vfs::OpenFile;
use moat_vfs::socket::{RestoreSockets, RestoredSockets, Socket};

use crate::tcp::restore::Restored as TcpSockets;
use crate::udp::UdpSocket;

struct Restored<'a> {
    tcp: TcpSockets<'a>,
    /// Those that no open file has yet.
    udp: Vec<Option<Arc<UdpSocket>>>,
}

/// The sockets of both families.
///
/// # Errors
/// What is wrong with one.
pub(crate) fn restore<'a>(request: &RestoreSockets<'a>) -> Result<Box<dyn RestoredSockets + 'a>, ImageError> {
    let udp = request.state.udp_sockets.iter().map(|saved| UdpSocket::restore(request, saved).map(Some));
    Ok(Box::new(Restored { tcp: TcpSockets::make(request)?, udp: udp.collect::<Result<_, _>>()? }))
}

impl RestoredSockets for Restored<'_> {
    fn take(&mut self, socket: SocketRef) -> Result<Arc<dyn Socket>, ImageError> {
        match socket {
            SocketRef::Tcp(index) => Ok(self.tcp.take(index)?),
            SocketRef::Udp(index) => {
                let socket = usize::try_from(index).ok().and_then(|at| self.udp.get_mut(at)).and_then(Option::take);
                Ok(socket.ok_or_else(|| ImageError::state(format!("UDP socket {index} is not there")))?)
            }
            SocketRef::Unix(_) => Err(ImageError::state("a UNIX socket among others")),
        }
    }

    fn fill(&self, _files: &[Arc<OpenFile>]) -> Result<(), ImageError> {
        // It would keep its port for ever.
        if self.udp.iter().any(Option::is_some) {
            return Err(ImageError::state("a UDP socket that nobody has open"));
        }
        self.tcp.fill()
    }
}
