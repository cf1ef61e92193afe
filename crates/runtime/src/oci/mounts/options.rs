//! Mount options, as in mount(8) and the OCI runtime specification.

use std::path::Path;

use moat_control::spec::{DevptsOptions, MountFlags, TmpfsOptions};

use moat_host::mounts::IdMapped;

use crate::host_tree::Submounts;

/// Bytes of a block of tmpfs(5), a page.
const TMPFS_BLOCK_BYTES: u64 = 4096;

/// Parsed options of one mount.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) flags: MountFlags,
    /// "bind" or "rbind".
    pub(super) bind: Option<Submounts>,
    /// What the host mounts below it later is to show.
    pub(super) follows_host: bool,
    mode: Option<u32>,
    ptmx_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size_bytes: Option<u64>,
    nr_inodes: Option<u64>,
    /// Ids are shown as a user namespace maps them.
    pub(super) id_mapped: Option<IdMapped>,
    copy_up: bool,
}

impl Options {
    /// Parses options; what is not among those of every mount is given back.
    pub(super) fn parse(options: &[String]) -> (Self, Vec<&str>) {
        let mut parsed = Options::default();
        let unknown = |option: &&str| match option.split_once('=') {
            Some((name, value)) => parsed.set_value(name, value).is_none(),
            None => parsed.set_flag(option).is_none(),
        };
        let others = options.iter().map(String::as_str).filter(unknown).collect();
        (parsed, others)
    }

    fn set_flag(&mut self, option: &str) -> Option<()> {
        match option {
            "ro" | "rro" => self.flags.readonly = true,
            "rw" | "rrw" => self.flags.readonly = false,
            "nosuid" | "rnosuid" => self.flags.nosuid = true,
            "suid" | "rsuid" => self.flags.nosuid = false,
            "nodev" | "rnodev" => self.flags.nodev = true,
            "dev" | "rdev" => self.flags.nodev = false,
            "noexec" | "rnoexec" => self.flags.noexec = true,
            "exec" | "rexec" => self.flags.noexec = false,
            "noatime" | "rnoatime" => self.flags.noatime = true,
            "atime" | "ratime" => self.flags.noatime = false,
            "bind" => self.bind = Some(Submounts::Hide),
            "tmpcopyup" => self.copy_up = true,
            "notmpcopyup" => self.copy_up = false,
            "rbind" => self.bind = Some(Submounts::Show),
            "idmap" => self.id_mapped = Some(IdMapped::Mount),
            "ridmap" => self.id_mapped = Some(IdMapped::All),
            "slave" | "rslave" => self.follows_host = true,
            // The guest updates access times as relatime does; what it mounts is never the host's; it has one
            // devpts; its cgroup view is fixed.
            "defaults"
            | "relatime"
            | "norelatime"
            | "strictatime"
            | "nostrictatime"
            | "rrelatime"
            | "rnorelatime"
            | "rstrictatime"
            | "rnostrictatime"
            | "diratime"
            | "nodiratime"
            | "rdiratime"
            | "rnodiratime"
            | "lazytime"
            | "nolazytime"
            // mount(2): of a bind mount these change nothing, for they are of the whole file system, and no memory has a
            // disk to wait for. Mandatory locks went with Linux 5.15.
            | "async"
            | "sync"
            | "dirsync"
            | "mand"
            | "nomand"
            | "iversion"
            | "noiversion"
            | "acl"
            | "noacl"
            | "silent"
            | "loud"
            | "symfollow"
            | "rsymfollow"
            | "unbindable"
            | "runbindable"
            | "private"
            | "rprivate"
            | "newinstance"
            | "nsdelegate"
            | "memory_recursiveprot"
            | "inode32"
            | "inode64"
            | "noswap" => {}
            _ => return None,
        }
        Some(())
    }

    fn set_value(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "mode" => self.mode = Some(octal(value)?),
            "ptmxmode" => self.ptmx_mode = Some(octal(value)?),
            "uid" => self.uid = Some(value.parse().ok()?),
            "gid" => self.gid = Some(value.parse().ok()?),
            "size" => self.size_bytes = Some(size(value)?),
            "nr_inodes" => self.nr_inodes = Some(size(value)?),
            "nr_blocks" => self.size_bytes = Some(size(value)?.checked_mul(TMPFS_BLOCK_BYTES)?),
            // Where the host is to take memory from: the sentry's own choice.
            "huge" | "mpol" => {}
            _ => return None,
        }
        Some(())
    }

    /// As options of a tmpfs of that source.
    pub(super) fn tmpfs(&self, source: Option<&Path>) -> TmpfsOptions {
        let default = TmpfsOptions::default();
        TmpfsOptions {
            source: source.map_or(default.source, |source| source.to_string_lossy().into_owned()),
            size_bytes: self.size_bytes,
            nr_inodes: self.nr_inodes,
            mode: self.mode.unwrap_or(default.mode),
            uid: self.uid.unwrap_or(default.uid),
            gid: self.gid.unwrap_or(default.gid),
            copy_up: self.copy_up,
        }
    }

    /// As options of a devpts.
    pub(super) fn devpts(&self) -> DevptsOptions {
        let default = DevptsOptions::default();
        DevptsOptions {
            mode: self.mode.unwrap_or(default.mode),
            ptmx_mode: self.ptmx_mode.unwrap_or(default.ptmx_mode),
            gid: self.gid,
        }
    }
}

fn octal(value: &str) -> Option<u32> {
    u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// A number with a suffix k, m or g, or a percentage of the host's memory.
fn size(value: &str) -> Option<u64> {
    if let Some(percent) = value.strip_suffix('%') {
        let percent: u64 = percent.parse().ok()?;
        return (crate::hardware::total_memory_bytes() / 100).checked_mul(percent);
    }
    let (digits, shift) = match value.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (value.get(..value.len() - 1)?, 10),
        b'm' => (value.get(..value.len() - 1)?, 20),
        b'g' => (value.get(..value.len() - 1)?, 30),
        _ => (value, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("65536k", 64 << 20), ("1m", 1 << 20), ("2G", 2 << 30), ("17", 17)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "k", "-1", "1t", "99999999999g", "x%"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_last_flag_wins() {
        let options = ["ro", "nosuid", "rw", "mode=0750"].map(String::from);
        let (parsed, others) = Options::parse(&options);
        assert!(others.is_empty());
        assert!(!parsed.flags.readonly && parsed.flags.nosuid);
        assert_eq!(parsed.tmpfs(None).mode, 0o750);
        assert_eq!(Options::parse(&["mode=9".into(), "frob".into()]).1, ["mode=9", "frob"]);
        assert!(Options::parse(&["sync", "dirsync", "mand"].map(String::from)).1.is_empty());
        assert_eq!(Options::parse(&["nr_blocks=2k".into()]).0.tmpfs(None).size_bytes, Some(8 << 20));
    }
}
