//! What an open file does as the holder of a lease.

use moat_abi::PollEvents;

use super::OpenFile;
use crate::leases::LeaseHolder;

impl LeaseHolder for OpenFile {
    fn lease_breaks(&self, fd: i32) {
        let (owner, signal) = self.owner();
        if let Some(signals) = self.path.mount.tables().io_signals.upgrade() {
            let band = PollEvents::IN | PollEvents::RDNORM | PollEvents::MSG;
            signals.send_io_signal(&owner, signal, fd, band.bits());
        }
    }
}
