//! Checkpoints: datagrams and packets that wait in a receive queue.

use moat_image::state::DatagramState;

use super::{Datagram, Inbox};
use crate::ancillary::Arrived;

impl Datagram {
    /// One that has come like this one, with `data`.
    pub(crate) fn save(&self, data: &[u8]) -> DatagramState {
        let Arrived { to, device, ttl, tos, .. } = self.arrived;
        DatagramState { data: data.to_vec(), from: self.from, to, device, ttl, tos }
    }
}

impl Inbox {
    /// Takes what was in the queue before, whatever the room is: so much there was.
    pub(crate) fn restore(&self, saved: &[DatagramState]) {
        for d in saved {
            let at = moat_vfs::clock::now();
            let arrived = Arrived { to: d.to, device: d.device, ttl: d.ttl, tos: d.tos, segment: 0, at, lost: 0 };
            self.put_back(Datagram { data: d.data.clone().into(), from: d.from, arrived });
        }
    }
}
