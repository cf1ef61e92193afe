//! What processes say to each other, read by the one that trusts the other less.

use moat_control::{Request, Response};
use moat_fs_host::gofer::protocol::{Frame, Reply};
use moat_net_inet::address;

/// The control protocol, both ways.
pub fn control(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        // The writer is the reader's own code, so nothing may get lost between them.
        let text = serde_json::to_vec(&request).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<Request>(&text).ok(), Some(request));
    }
    let _ = serde_json::from_slice::<Response>(data);
}

/// The gofer's protocol, both ways.
pub fn gofer(data: &[u8]) {
    if let Ok((frame, _)) = postcard::take_from_bytes::<Frame<'_>>(data) {
        assert!(frame.closed.len() <= data.len(), "a list is longer than its bytes");
    }
    let _ = postcard::take_from_bytes::<Reply<'_>>(data);
}

/// The attributes of a netlink message.
pub fn netlink(data: &[u8]) {
    let all: usize = moat_net_netlink::Attributes(data).map(|(_, value)| value.len()).sum();
    assert!(all <= data.len(), "attributes are larger than their message");
}

/// Socket addresses.
pub fn addresses(data: &[u8]) {
    for family in [0, 2, 10, u16::MAX] {
        let _ = address::parse(family, data);
        let _ = address::parse_for_datagram(family, data);
        let _ = address::parse_for_bind(family, data);
    }
}

/// Events of the host's fanotify(7).
pub fn fanotify(data: &[u8]) {
    let events = moat_host::fanotify::parse(data);
    assert!(events.len() <= data.len());
}

/// The answer of a monitor of security events.
pub fn monitor(data: &[u8]) {
    let _ = moat_monitor::wire::accept(data);
}
