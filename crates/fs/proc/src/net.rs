//! /proc/PID/net: the network namespace as text, proc_pid_net(5).

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_vfs::Credentials;
use moat_vfs::generated::{Entry, Listing, Made, Text, TextFile};
use moat_vfs::inode::Inode;
use moat_vfs::registry::NetText;

use crate::mount::{self, ProcMount};
use crate::who::Who;

/// A file of the directory and what makes its contents.
type File = (&'static str, fn(&NetNamespace) -> Vec<u8>);

/// Files about devices and addresses; families may register their own in place of them.
const FILES: &[File] = &[
    ("arp", |_| b"IP address       HW type     Flags       HW address            Mask     Device\n".to_vec()),
    ("dev", dev),
    ("if_inet6", if_inet6),
    ("route", |_| b"Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n".to_vec()),
];

fn dev(net: &NetNamespace) -> Vec<u8> {
    let mut text = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    // Traffic is not counted.
    for device in net.devices() {
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{:>6}:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0",
            device.name
        );
    }
    text.into_bytes()
}

/// Address, number of the device, prefix, scope, flags (permanent), device: all in hexadecimal.
fn if_inet6(net: &NetNamespace) -> Vec<u8> {
    /// The scope of an address for this machine only (`IPV6_ADDR_LOOPBACK`).
    const LOOPBACK: u8 = 0x10;
    /// The scope of an address for one link only (`IPV6_ADDR_LINKLOCAL`).
    const LINK_LOCAL: u8 = 0x20;
    let mut text = String::new();
    for device in net.devices() {
        for a in &device.addresses {
            let IpAddr::V6(ip) = a.ip else { continue };
            // The columns are address, index, prefix length, scope, flags (0x80: permanent), name.
            let scope = match () {
                () if ip.is_loopback() => LOOPBACK,
                () if ip.is_unicast_link_local() => LINK_LOCAL,
                () => 0,
            };
            let _ = writeln!(
                text,
                "{:032x} {:02x} {:02x} {scope:02x} 80 {:>8}",
                u128::from(ip),
                device.index,
                a.prefix_len,
                device.name
            );
        }
    }
    text.into_bytes()
}

/// A file that an address family has registered.
struct Registered {
    text: NetText,
    net: Arc<NetNamespace>,
}

impl Text for Registered {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        Ok((self.text)(&self.net))
    }
}

/// The network namespace of a task, as it is when a file of it is looked up.
struct NetDir {
    proc: ProcMount,
    who: Who,
}

pub(crate) fn dir(proc: &ProcMount, who: &Who) -> Arc<dyn Inode> {
    mount::dir(proc.attributes("net", 0o555), NetDir { proc: proc.clone(), who: who.clone() })
}

impl Listing for NetDir {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let registry = &self.proc.kernel.vfs.registry;
        let net = self.who.task().map_err(|_| Errno::ENOENT)?.namespaces().net.clone();
        let attributes = |name: &str| self.proc.attributes(("net", name, net.id), 0o444);
        // The file of a family comes before one of the same name here.
        if let Some((name, text)) = registry.net_texts().find(|(n, _)| n.as_bytes() == name) {
            return Ok(TextFile::new(attributes(name), Registered { text, net }));
        }
        let (name, make) = FILES.iter().find(|(n, _)| n.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let (attributes, make) = (attributes(name), *make);
        Ok(TextFile::new(attributes, Made(move || make(&net))))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let net = self.who.task().map_err(|_| Errno::ENOENT)?.namespaces().net.clone();
        let entry = |name: &str| Entry {
            name: name.as_bytes().to_vec(),
            ino: self.proc.ino(("net", name, net.id)),
            file_type: FileType::Regular,
        };
        let registered: Vec<_> = self.proc.kernel.vfs.registry.net_texts().map(|(name, _)| name).collect();
        let own = FILES.iter().map(|(n, _)| *n).filter(|n| !registered.contains(n));
        Ok(own.chain(registered.iter().copied()).map(entry).collect())
    }
}
