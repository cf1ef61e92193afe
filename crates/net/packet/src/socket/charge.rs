//! Frames that wait are counted for the container whose socket it is ([`moat_vfs::socket::SocketMemory`]).

use super::{PacketSocket, PacketState};

impl PacketSocket {
    /// Throws away what waits, and gives back what it counts for.
    pub(super) fn drop_frames(&self, s: &mut PacketState) {
        s.frames.clear();
        self.core.memory().release(std::mem::take(&mut s.bytes));
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        // One that came while the socket was being closed.
        self.drop_frames(&mut self.state.lock());
    }
}
