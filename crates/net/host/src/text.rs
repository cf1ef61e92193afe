//! /proc/net, proc_pid_net(5): the host's own files about the network namespace.

use moat_vfs::Registry;

/// Registers each file with a function that reads the host's file of that name.
macro_rules! host_files {
    ($($name:literal)*) => {
        /// Registers the files.
        pub(crate) fn register(registry: &mut Registry) {
            $(registry.net_text($name, |_net| moat_host::procfs::net_file($name).unwrap_or_default());)*
        }
    };
}

host_files! {
    "arp" "dev" "dev_mcast" "fib_trie" "icmp" "icmp6" "if_inet6" "igmp" "igmp6" "ipv6_route" "netstat" "raw" "raw6"
    "route" "snmp" "snmp6" "sockstat" "sockstat6" "tcp" "tcp6" "udp" "udp6"
}
