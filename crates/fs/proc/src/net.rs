//! /proc/PID/net: the network namespace as text, proc_pid_net(5).

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_vfs::Credentials;
use moat_vfs::generated::{Entry, Listing, Made, Text, TextFile};
use moat_vfs::inode::Inode;
use moat_vfs::socket::registry::{self, NetText};

use crate::fs::Core;
use crate::root;

/// A file of the directory and what makes its contents.
type File = (&'static str, fn() -> Vec<u8>);

/// Files with the loopback device alone; families may register their own in place of them.
const FILES: &[File] = &[
    ("arp", || b"IP address       HW type     Flags       HW address            Mask     Device\n".to_vec()),
    ("dev", dev),
    ("if_inet6", || b"00000000000000000000000000000001 01 80 10 80       lo\n".to_vec()),
    ("route", || b"Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n".to_vec()),
];

fn dev() -> Vec<u8> {
    b"Inter-|   Receive                                                |  Transmit\n \
face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n"
        .to_vec()
}

/// A file that an address family has registered.
struct Registered {
    text: NetText,
    net: Arc<NetNamespace>,
}

impl Text for Registered {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        Ok((self.text)(self.net.id))
    }
}

struct NetDir {
    core: Core,
}

pub(crate) fn dir(core: &Core) -> Arc<dyn Inode> {
    root::dir(core.attributes("net", 0o555), NetDir { core: core.clone() })
}

impl Listing for NetDir {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if let Some((name, text)) = registry::net_text(name) {
            return Ok(TextFile::new(self.core.attributes(("net", name), 0o444), Registered { text, net: self.core.namespaces.net.clone() }));
        }
        let (name, make) = FILES.iter().find(|(n, _)| n.as_bytes() == name).ok_or(Errno::ENOENT)?;
        Ok(TextFile::new(self.core.attributes(("net", name), 0o444), Made(*make)))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let entry = |name: &str| Entry {
            name: name.as_bytes().to_vec(),
            ino: self.core.ino(("net", name)),
            file_type: FileType::Regular,
        };
        let registered = registry::net_texts();
        let own = FILES.iter().map(|(n, _)| *n).filter(|n| !registered.contains(n));
        Ok(own.chain(registered.iter().copied()).map(entry).collect())
    }
}
