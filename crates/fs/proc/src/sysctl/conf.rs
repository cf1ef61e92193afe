//! Settings of network devices: /proc/sys/net/ipv4/conf and /proc/sys/net/ipv6/conf, a directory for each device, one for all and one
//! for those to come. Source: ip-sysctl of Linux's documentation, `devinet_sysctl`, `addrconf_sysctl`.
//!
//! The stack forwards nothing and its ways of asking and answering can't be chosen, so that values are kept for whoever reads them
//! back; `forwarding` of all devices is that of each, as on Linux.

use std::collections::BTreeMap;

use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;

/// A setting: its name, and its value for all devices, for those to come, and for `lo`.
type Setting = (&'static str, [i64; 3]);

const IPV4: &[Setting] = &[
    ("accept_local", [0, 0, 0]),
    ("accept_redirects", [1, 1, 1]),
    // Allowed by each device, and by none of them as long as all do not.
    ("accept_source_route", [0, 1, 1]),
    ("arp_accept", [0, 0, 0]),
    ("arp_announce", [0, 0, 0]),
    ("arp_evict_nocarrier", [1, 1, 1]),
    ("arp_filter", [0, 0, 0]),
    ("arp_ignore", [0, 0, 0]),
    ("arp_notify", [0, 0, 0]),
    ("bc_forwarding", [0, 0, 0]),
    ("bootp_relay", [0, 0, 0]),
    // Nothing that stays in the namespace is encrypted.
    ("disable_policy", [0, 0, 1]),
    ("disable_xfrm", [0, 0, 1]),
    ("drop_gratuitous_arp", [0, 0, 0]),
    ("drop_unicast_in_l2_multicast", [0, 0, 0]),
    ("force_igmp_version", [0, 0, 0]),
    ("forwarding", [0, 0, 0]),
    ("igmpv2_unsolicited_report_interval", [10_000, 10_000, 10_000]),
    ("igmpv3_unsolicited_report_interval", [1000, 1000, 1000]),
    ("ignore_routes_with_linkdown", [0, 0, 0]),
    ("log_martians", [0, 0, 0]),
    ("mc_forwarding", [0, 0, 0]),
    ("medium_id", [0, 0, 0]),
    ("promote_secondaries", [0, 0, 0]),
    ("proxy_arp", [0, 0, 0]),
    ("proxy_arp_pvlan", [0, 0, 0]),
    ("route_localnet", [0, 0, 0]),
    ("rp_filter", [0, 0, 0]),
    ("secure_redirects", [1, 1, 1]),
    ("send_redirects", [1, 1, 1]),
    ("shared_media", [1, 1, 1]),
    ("src_valid_mark", [0, 0, 0]),
    ("tag", [0, 0, 0]),
];

const IPV6: &[Setting] = &[
    // Nobody else can have an address of `lo`.
    ("accept_dad", [0, 1, -1]),
    ("accept_ra", [1, 1, 1]),
    ("accept_ra_defrtr", [1, 1, 1]),
    ("accept_ra_from_local", [0, 0, 0]),
    ("accept_ra_min_hop_limit", [1, 1, 1]),
    ("accept_ra_mtu", [1, 1, 1]),
    ("accept_ra_pinfo", [1, 1, 1]),
    ("accept_ra_rt_info_max_plen", [0, 0, 0]),
    ("accept_ra_rt_info_min_plen", [0, 0, 0]),
    ("accept_ra_rtr_pref", [1, 1, 1]),
    ("accept_redirects", [1, 1, 1]),
    ("accept_source_route", [0, 0, 0]),
    ("addr_gen_mode", [0, 0, 0]),
    ("autoconf", [1, 1, 1]),
    ("dad_transmits", [1, 1, 1]),
    ("disable_ipv6", [0, 0, 0]),
    ("disable_policy", [0, 0, 0]),
    ("drop_unicast_in_l2_multicast", [0, 0, 0]),
    ("drop_unsolicited_na", [0, 0, 0]),
    ("enhanced_dad", [1, 1, 1]),
    ("force_mld_version", [0, 0, 0]),
    ("force_tllao", [0, 0, 0]),
    ("forwarding", [0, 0, 0]),
    ("hop_limit", [64, 64, 64]),
    ("ignore_routes_with_linkdown", [0, 0, 0]),
    ("keep_addr_on_down", [0, 0, 0]),
    ("max_addresses", [16, 16, 16]),
    ("max_desync_factor", [600, 600, 600]),
    ("mc_forwarding", [0, 0, 0]),
    ("mldv1_unsolicited_report_interval", [10_000, 10_000, 10_000]),
    ("mldv2_unsolicited_report_interval", [1000, 1000, 1000]),
    ("ndisc_notify", [0, 0, 0]),
    ("ndisc_tclass", [0, 0, 0]),
    ("optimistic_dad", [0, 0, 0]),
    ("proxy_ndp", [0, 0, 0]),
    ("regen_max_retry", [3, 3, 3]),
    ("router_probe_interval", [60, 60, 60]),
    ("router_solicitation_delay", [1, 1, 1]),
    ("router_solicitation_interval", [4, 4, 4]),
    ("router_solicitation_max_interval", [3600, 3600, 3600]),
    // Without an end.
    ("router_solicitations", [-1, -1, -1]),
    ("suppress_frag_ndisc", [1, 1, 1]),
    ("temp_prefered_lft", [86_400, 86_400, 86_400]),
    ("temp_valid_lft", [604_800, 604_800, 604_800]),
    ("use_oif_addrs_only", [0, 0, 0]),
    ("use_optimistic", [0, 0, 0]),
    // Not even by others' wish.
    ("use_tempaddr", [0, 0, -1]),
];

/// The two families: where their settings are.
const FAMILIES: [(&str, &[Setting]); 2] = [("net/ipv4/conf/", IPV4), ("net/ipv6/conf/", IPV6)];

/// Cannot be set: nobody routes groups, and IPv6 can't be taken off devices.
const FIXED: [&str; 2] = ["mc_forwarding", "disable_ipv6"];

/// Whose setting it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    All,
    Default,
    /// The device of this number: one that comes later under the same name is another.
    Device(u32),
}

/// Names a setting: the family by its place in [`FAMILIES`], the setting by its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    family: usize,
    setting: usize,
    whose: Whose,
}

/// `forwarding` of all devices for IPv4, which has another name too (`net.ipv4.ip_forward`).
pub(super) const FORWARDING: Place = Place { family: 0, setting: FORWARDING_AT, whose: Whose::All };
const FORWARDING_AT: usize = 16;

/// The values that were set.
#[derive(Default)]
pub(super) struct Values(BTreeMap<Place, i32>);

/// The paths of all settings of a namespace, below /proc/sys.
pub(super) fn paths(net: &NetNamespace) -> Vec<String> {
    let devices = net.devices();
    // A device of either name can't be told from these, nor can it on Linux.
    paths_of(["all", "default"].into_iter().chain(devices.iter().map(|d| d.name.as_str()))).collect()
}

fn paths_of<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    names
        .flat_map(|name| FAMILIES.iter().map(move |family| (name, family)))
        .flat_map(|(name, (prefix, all))| all.iter().map(move |(setting, _)| format!("{prefix}{name}/{setting}")))
}

/// The devices by number, and which of them is the loopback device.
pub(super) fn devices(net: &NetNamespace) -> (Vec<u32>, Option<u32>) {
    let devices = net.devices();
    let loopback = devices.iter().find(|d| d.name == "lo").map(|d| d.index);
    (devices.iter().map(|d| d.index).collect(), loopback)
}

/// The setting at a path.
pub(super) fn find(net: &NetNamespace, path: &str) -> Option<Place> {
    let (family, (prefix, all)) = FAMILIES.iter().enumerate().find(|(_, f)| path.starts_with(f.0))?;
    let (name, setting) = path.strip_prefix(prefix)?.rsplit_once('/')?;
    let setting = all.iter().position(|s| s.0 == setting)?;
    let whose = match name {
        "all" => Whose::All,
        "default" => Whose::Default,
        name => Whose::Device(net.devices().iter().find(|d| d.name == name)?.index),
    };
    Some(Place { family, setting, whose })
}

/// The paths of settings whose devices are always there.
pub(super) fn lasting_paths() -> impl Iterator<Item = String> {
    paths_of(["all", "default", "lo"].into_iter())
}

impl Place {
    fn is(self) -> Setting {
        // Both places come from the lists.
        FAMILIES.get(self.family).and_then(|f| f.1.get(self.setting)).copied().unwrap_or(("", [0; 3]))
    }

    /// Whether it can be set.
    pub(super) fn can_be_set(self) -> bool {
        !FIXED.contains(&self.is().0)
    }

    fn of(self, whose: Whose) -> Place {
        Place { whose, ..self }
    }
}

impl Values {
    /// The value of a setting; `loopback` is that device's number.
    pub(super) fn get(&self, loopback: Option<u32>, place: Place) -> i64 {
        if let Some(value) = self.0.get(&place) {
            return i64::from(*value);
        }
        let [all, default, lo] = place.is().1;
        match place.whose {
            Whose::All => all,
            Whose::Default => default,
            Whose::Device(index) if loopback == Some(index) && lo != default => lo,
            // Of IPv6 what it was when the device came: a change since has noted it.
            Whose::Device(_) => self.get(loopback, place.of(Whose::Default)),
        }
    }

    /// Sets it, in a namespace with these devices, by number.
    ///
    /// # Errors
    /// EINVAL for what is no number of 32 bits.
    pub(super) fn set(&mut self, devices: &[u32], loopback: Option<u32>, place: Place, text: &str) -> Result<()> {
        // The first number counts (`proc_dointvec`).
        let word = text.split_ascii_whitespace().next().ok_or(Errno::EINVAL)?;
        let value: i32 = word.parse().map_err(|_| Errno::EINVAL)?;
        // Devices come and go without an end.
        self.0.retain(|place, _| !matches!(place.whose, Whose::Device(index) if !devices.contains(&index)));
        match place.whose {
            Whose::All if place.is().0 == "forwarding" => {
                let each = devices.iter().copied().map(Whose::Device).chain([Whose::All, Whose::Default]);
                each.for_each(|whose| {
                    self.0.insert(place.of(whose), value);
                });
            }
            // Devices of IPv4 go along that have none of their own (`devinet_copy_dflt_conf`).
            Whose::Default if place.family != 0 => {
                for &device in devices {
                    let of_device = place.of(Whose::Device(device));
                    let before = self.get(loopback, of_device);
                    self.0.entry(of_device).or_insert(i32::try_from(before).unwrap_or(0));
                }
                self.0.insert(place, value);
            }
            _ => {
                self.0.insert(place, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_is_where_it_is_said_to_be() {
        assert_eq!(FORWARDING.is().0, "forwarding");
    }
}
