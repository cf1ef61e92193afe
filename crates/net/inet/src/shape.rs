//! [`Shape`]: what a namespace's network is made of, to see whether somebody has changed it.

use moat_abi::socket::{IFF_LOWER_UP, IFF_RUNNING};
use moat_identity::NetNamespace;
use moat_identity::net::{NetDevice, Route};
use moat_net_stack::Neighbour;

use crate::links::{LinkState, add_loopback};
use crate::stack::stack_of;

/// `NUD_PERMANENT` and `NUD_NOARP`: neighbours that somebody has entered.
const FOR_GOOD: u16 = 0x80 | 0x40;
/// What a link's other end decides.
const OF_THE_OTHER_END: u32 = IFF_RUNNING | IFF_LOWER_UP;

/// The links, addresses, routes and permanent neighbours of a namespace at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    devices: Vec<NetDevice>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
}

impl Shape {
    /// What it is now.
    #[must_use]
    pub fn of(net: &NetNamespace) -> Shape {
        // Nobody in here changes those: a cable that is pulled is no change of the configuration.
        let mut devices = net.devices();
        devices.iter_mut().for_each(|device| device.flags &= !OF_THE_OTHER_END);
        let mut neighbours = stack_of(net).map(|stack| stack.change(|s| s.neighbours())).unwrap_or_default();
        neighbours.retain(|neighbour| neighbour.state & FOR_GOOD != 0);
        neighbours.sort_by_key(|neighbour| (neighbour.link, neighbour.address));
        Shape { devices, routes: net.routes(), neighbours }
    }

    /// The first kind of thing that is another than it was `before`.
    #[must_use]
    pub fn difference(&self, before: &Shape) -> Option<&'static str> {
        let links = |shape: &Shape| -> Vec<NetDevice> {
            shape.devices.iter().map(|device| NetDevice { addresses: Vec::new(), ..device.clone() }).collect()
        };
        // An address brings routes with it, and a link addresses: the first of them is what was changed.
        if links(self) != links(before) {
            Some("links")
        } else if self.devices != before.devices {
            Some("addresses")
        } else if self.routes != before.routes {
            Some("routes")
        } else if self.neighbours != before.neighbours {
            Some("neighbours")
        } else {
            None
        }
    }
}

/// How the loopback device of a namespace is, where that has nothing that a new one lacks.
#[must_use]
pub fn loopback_alone(net: &NetNamespace) -> Option<LinkState> {
    let shape = Shape::of(net);
    [LinkState::Down, LinkState::Up].into_iter().find(|state| {
        let new = NetNamespace::new(0, net.user_ns.clone());
        add_loopback(&new, *state);
        Shape::of(&new) == shape
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::change;
    use moat_identity::UserNamespace;
    use moat_net_stack::AddressConfig;

    #[test]
    fn each_kind_of_change_is_seen() {
        let net = NetNamespace::new(1, UserNamespace::root());
        add_loopback(&net, LinkState::Up);
        let mut before = Shape::of(&net);
        assert_eq!(Shape::of(&net).difference(&before), None);
        let ip = "10.1.2.3".parse().expect("an address");
        let address = AddressConfig { ip, prefix_len: 24, broadcast: None, scope: 0 };
        let add = change(&net, |stack| stack.change(|s| s.add_address(1, address)));
        assert_eq!(add, Ok(()));
        // An address brings its routes with it: the first kind is named.
        assert_eq!(Shape::of(&net).difference(&before), Some("addresses"));
        before = Shape::of(&net);
        let entered = Neighbour { link: 1, address: ip, mac: Some([2; 6]), state: FOR_GOOD };
        before.neighbours.push(entered);
        assert_eq!(Shape::of(&net).difference(&before), Some("neighbours"));
        before = Shape::of(&net);
        net.show(moat_identity::net::NetView { devices: net.devices(), routes: Vec::new() }, true);
        assert_eq!(Shape::of(&net).difference(&before), Some("routes"));
        before = Shape::of(&net);
        let mut devices = net.devices();
        devices[0].flags ^= OF_THE_OTHER_END;
        net.show(moat_identity::net::NetView { devices: devices.clone(), routes: Vec::new() }, true);
        assert_eq!(Shape::of(&net).difference(&before), None, "the other end");
        devices[0].mtu = 1400;
        net.show(moat_identity::net::NetView { devices, routes: Vec::new() }, true);
        assert_eq!(Shape::of(&net).difference(&before), Some("links"));
    }
}
