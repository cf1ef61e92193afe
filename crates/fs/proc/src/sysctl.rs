//! /proc/sys: the settings of the kernel, proc_sys(5).
//!
//! Most of them are facts here: a write of what a container may set is kept where it has an effect, and refused elsewhere.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::{Errno, Result};
use moat_kernel::kernel::{RELEASE, VERSION, kernel};
use moat_vfs::cred::Credentials;
use moat_vfs::generated::{Attributes, Table, TableDir, Text, TextFile};
use moat_vfs::inode::Inode;

use crate::fs::Core;

enum Value {
    Fixed(&'static str),
    Made(fn() -> String),
    /// Read and set by functions; needs CAP_SYS_ADMIN.
    Set(fn() -> String, fn(&str) -> Result<()>),
}

/// Path below /proc/sys and value.
type Setting = (&'static str, Value);

const SETTINGS: &[Setting] = &[
    ("fs/file-max", Value::Fixed("9223372036854775807")),
    ("fs/file-nr", Value::Fixed("0\t0\t9223372036854775807")),
    ("fs/inotify/max_queued_events", Value::Fixed("16384")),
    ("fs/inotify/max_user_instances", Value::Fixed("128")),
    ("fs/inotify/max_user_watches", Value::Fixed("65536")),
    ("fs/mqueue/msg_max", Value::Fixed("10")),
    ("fs/mqueue/msgsize_max", Value::Fixed("8192")),
    ("fs/mqueue/queues_max", Value::Fixed("256")),
    ("fs/nr_open", Value::Fixed("1048576")),
    ("fs/pipe-max-size", Value::Fixed("1048576")),
    ("fs/pipe-user-pages-hard", Value::Fixed("0")),
    ("fs/pipe-user-pages-soft", Value::Fixed("16384")),
    ("fs/protected_hardlinks", Value::Fixed("0")),
    ("fs/protected_symlinks", Value::Fixed("0")),
    ("kernel/cap_last_cap", Value::Fixed("40")),
    ("kernel/core_pattern", Value::Fixed("core")),
    ("kernel/core_uses_pid", Value::Fixed("0")),
    (
        "kernel/domainname",
        Value::Set(
            || lossy(kernel().root_namespaces.uts.domain_name()),
            |v| {
                kernel().root_namespaces.uts.set_domain_name(name(v)?);
                Ok(())
            },
        ),
    ),
    (
        "kernel/hostname",
        Value::Set(
            || lossy(kernel().root_namespaces.uts.host_name()),
            |v| {
                kernel().root_namespaces.uts.set_host_name(name(v)?);
                Ok(())
            },
        ),
    ),
    ("kernel/kptr_restrict", Value::Fixed("1")),
    ("kernel/msgmax", Value::Fixed("8192")),
    ("kernel/msgmnb", Value::Fixed("16384")),
    ("kernel/msgmni", Value::Fixed("32000")),
    ("kernel/ngroups_max", Value::Fixed("65536")),
    ("kernel/osrelease", Value::Fixed(RELEASE)),
    ("kernel/ostype", Value::Fixed("Linux")),
    ("kernel/overflowgid", Value::Fixed("65534")),
    ("kernel/overflowuid", Value::Fixed("65534")),
    ("kernel/perf_event_paranoid", Value::Fixed("3")),
    ("kernel/pid_max", Value::Fixed("4194304")),
    ("kernel/printk", Value::Fixed("4\t4\t1\t7")),
    ("kernel/random/boot_id", Value::Made(|| uuid(kernel().boot_id))),
    ("kernel/random/entropy_avail", Value::Fixed("256")),
    ("kernel/random/poolsize", Value::Fixed("256")),
    (
        "kernel/random/uuid",
        Value::Made(|| {
            let mut bytes = [0; 16];
            moat_kernel::random::fill(&mut bytes);
            uuid(bytes)
        }),
    ),
    ("kernel/randomize_va_space", Value::Fixed("2")),
    ("kernel/sem", Value::Fixed("32000\t1024000000\t500\t32000")),
    ("kernel/shmall", Value::Fixed("18446744073692774399")),
    ("kernel/shmmax", Value::Fixed("18446744073692774399")),
    ("kernel/shmmni", Value::Fixed("4096")),
    ("kernel/threads-max", Value::Fixed("126864")),
    ("kernel/unprivileged_userns_clone", Value::Fixed("1")),
    ("kernel/version", Value::Fixed(VERSION)),
    ("kernel/yama/ptrace_scope", Value::Fixed("0")),
    ("net/core/somaxconn", Value::Fixed("4096")),
    ("net/core/rmem_default", Value::Fixed("212992")),
    ("net/core/rmem_max", Value::Fixed("212992")),
    ("net/core/wmem_default", Value::Fixed("212992")),
    ("net/core/wmem_max", Value::Fixed("212992")),
    ("net/ipv4/ip_local_port_range", Value::Fixed("32768\t60999")),
    ("net/ipv4/ip_unprivileged_port_start", Value::Fixed("1024")),
    ("net/ipv4/tcp_congestion_control", Value::Fixed("reno")),
    ("net/ipv4/tcp_rmem", Value::Fixed("4096\t131072\t6291456")),
    ("net/ipv4/tcp_wmem", Value::Fixed("4096\t16384\t4194304")),
    ("net/ipv4/tcp_sack", Value::Fixed("1")),
    ("net/ipv6/conf/all/disable_ipv6", Value::Fixed("0")),
    ("net/unix/max_dgram_qlen", Value::Fixed("10")),
    ("vm/max_map_count", Value::Fixed("65530")),
    ("vm/mmap_min_addr", Value::Fixed("65536")),
    ("vm/overcommit_memory", Value::Fixed("0")),
    ("vm/overcommit_ratio", Value::Fixed("50")),
    ("vm/swappiness", Value::Fixed("60")),
];

fn lossy(name: Vec<u8>) -> String {
    String::from_utf8_lossy(&name).into_owned()
}

/// A host or domain name: at most 64 bytes.
fn name(text: &str) -> Result<Vec<u8>> {
    let text = text.trim_end_matches('\n');
    if text.len() > 64 { Err(Errno::EINVAL) } else { Ok(text.as_bytes().to_vec()) }
}

fn uuid(mut b: [u8; 16]) -> String {
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|x| format!("{x:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

struct SettingText(&'static Setting);

impl Text for SettingText {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        let text = match &self.0.1 {
            Value::Fixed(text) => (*text).to_owned(),
            Value::Made(make) | Value::Set(make, _) => make(),
        };
        Ok(format!("{text}\n").into_bytes())
    }

    fn write(&self, caller: &Credentials, data: &[u8]) -> Result<()> {
        let Value::Set(_, set) = &self.0.1 else { return Err(Errno::EPERM) };
        if !caller.has_root_cap(Cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        set(std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?)
    }
}

struct Settings {
    core: Core,
}

pub(crate) fn root(core: &Core) -> Arc<dyn Inode> {
    TableDir::root(Settings { core: core.clone() })
}

impl Table for Settings {
    fn paths(&self) -> Vec<String> {
        SETTINGS.iter().map(|(path, _)| (*path).to_owned()).collect()
    }

    fn file(&self, path: &str) -> Arc<dyn Inode> {
        let found = SETTINGS.iter().find(|(p, _)| *p == path);
        let setting = found.unwrap_or(&SETTINGS[0]);
        let mode = if matches!(setting.1, Value::Made(_)) { 0o444 } else { 0o644 };
        TextFile::new(self.core.attributes(("sys", path), mode), SettingText(setting))
    }

    fn dir_attributes(&self, path: &str) -> Attributes {
        self.core.attributes(("sys", path), 0o555)
    }
}
