//! Capabilities and the constants of credentials.
//!
//! Sources: capabilities(7), `linux/{capability,securebits,keyctl}.h`.

use core::fmt;

macro_rules! caps {
    ($($name:ident $text:literal = $num:literal;)*) => {
        /// A capability, capabilities(7).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(non_camel_case_types, reason = "the names of capabilities(7) without CAP_")]
        pub enum Cap {
            $(#[doc = concat!("`", $text, "`.")] $name = $num,)*
        }

        impl Cap {
            /// All of them in the order of their numbers.
            pub const ALL: &'static [Cap] = &[$(Cap::$name,)*];

            /// The name, `"CAP_CHOWN"`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Cap::$name => $text,)* }
            }

            /// The capability called `name` (`"CAP_CHOWN"`, in any case).
            #[must_use]
            pub fn from_name(name: &str) -> Option<Cap> {
                Cap::ALL.iter().copied().find(|c| c.name().eq_ignore_ascii_case(name))
            }
        }
    };
}

caps! {
    CHOWN "CAP_CHOWN" = 0;
    DAC_OVERRIDE "CAP_DAC_OVERRIDE" = 1;
    DAC_READ_SEARCH "CAP_DAC_READ_SEARCH" = 2;
    FOWNER "CAP_FOWNER" = 3;
    FSETID "CAP_FSETID" = 4;
    KILL "CAP_KILL" = 5;
    SETGID "CAP_SETGID" = 6;
    SETUID "CAP_SETUID" = 7;
    SETPCAP "CAP_SETPCAP" = 8;
    LINUX_IMMUTABLE "CAP_LINUX_IMMUTABLE" = 9;
    NET_BIND_SERVICE "CAP_NET_BIND_SERVICE" = 10;
    NET_BROADCAST "CAP_NET_BROADCAST" = 11;
    NET_ADMIN "CAP_NET_ADMIN" = 12;
    NET_RAW "CAP_NET_RAW" = 13;
    IPC_LOCK "CAP_IPC_LOCK" = 14;
    IPC_OWNER "CAP_IPC_OWNER" = 15;
    SYS_MODULE "CAP_SYS_MODULE" = 16;
    SYS_RAWIO "CAP_SYS_RAWIO" = 17;
    SYS_CHROOT "CAP_SYS_CHROOT" = 18;
    SYS_PTRACE "CAP_SYS_PTRACE" = 19;
    SYS_PACCT "CAP_SYS_PACCT" = 20;
    SYS_ADMIN "CAP_SYS_ADMIN" = 21;
    SYS_BOOT "CAP_SYS_BOOT" = 22;
    SYS_NICE "CAP_SYS_NICE" = 23;
    SYS_RESOURCE "CAP_SYS_RESOURCE" = 24;
    SYS_TIME "CAP_SYS_TIME" = 25;
    SYS_TTY_CONFIG "CAP_SYS_TTY_CONFIG" = 26;
    MKNOD "CAP_MKNOD" = 27;
    LEASE "CAP_LEASE" = 28;
    AUDIT_WRITE "CAP_AUDIT_WRITE" = 29;
    AUDIT_CONTROL "CAP_AUDIT_CONTROL" = 30;
    SETFCAP "CAP_SETFCAP" = 31;
    MAC_OVERRIDE "CAP_MAC_OVERRIDE" = 32;
    MAC_ADMIN "CAP_MAC_ADMIN" = 33;
    SYSLOG "CAP_SYSLOG" = 34;
    WAKE_ALARM "CAP_WAKE_ALARM" = 35;
    BLOCK_SUSPEND "CAP_BLOCK_SUSPEND" = 36;
    AUDIT_READ "CAP_AUDIT_READ" = 37;
    PERFMON "CAP_PERFMON" = 38;
    BPF "CAP_BPF" = 39;
    CHECKPOINT_RESTORE "CAP_CHECKPOINT_RESTORE" = 40;
}

/// Number of the last capability (`/proc/sys/kernel/cap_last_cap`).
pub const CAP_LAST_CAP: u32 = 40;

impl Cap {
    /// Capability `number`, if there is one.
    #[must_use]
    pub fn new(number: u64) -> Option<Cap> {
        Cap::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The set of this capability alone.
    #[must_use]
    pub const fn bit(self) -> CapSet {
        CapSet(1 << self as u8)
    }
}

/// A set of capabilities: capability n is bit n.
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(transparent)]
pub struct CapSet(pub u64);

impl CapSet {
    /// No capability.
    pub const EMPTY: CapSet = CapSet(0);
    /// Every capability that exists.
    pub const FULL: CapSet = CapSet((1 << (CAP_LAST_CAP + 1)) - 1);
    /// What a process loses in its effective set when its fsuid stops being 0 (`CAP_FS_MASK`), setfsuid(2).
    pub const FS_MASK: CapSet = Cap::CHOWN
        .bit()
        .union(Cap::MKNOD.bit())
        .union(Cap::DAC_OVERRIDE.bit())
        .union(Cap::DAC_READ_SEARCH.bit())
        .union(Cap::FOWNER.bit())
        .union(Cap::FSETID.bit())
        .union(Cap::MAC_OVERRIDE.bit())
        .union(Cap::LINUX_IMMUTABLE.bit());

    /// Whether no capability is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `cap` is in the set.
    #[must_use]
    pub const fn contains(self, cap: Cap) -> bool {
        self.0 & cap.bit().0 != 0
    }

    /// Whether all of `other` is in the set.
    #[must_use]
    pub const fn contains_all(self, other: CapSet) -> bool {
        other.0 & !self.0 == 0
    }

    /// Puts `cap` in.
    pub const fn insert(&mut self, cap: Cap) {
        self.0 |= cap.bit().0;
    }

    /// Takes `cap` out.
    pub const fn remove(&mut self, cap: Cap) {
        self.0 &= !cap.bit().0;
    }

    /// Capabilities in either.
    #[must_use]
    pub const fn union(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }

    /// Capabilities in both.
    #[must_use]
    pub const fn intersection(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }

    /// Capabilities in this one and not in `other`.
    #[must_use]
    pub const fn difference(self, other: CapSet) -> CapSet {
        CapSet(self.0 & !other.0)
    }

    /// The capabilities in the order of their numbers; bits without one are left out.
    pub fn iter(self) -> impl Iterator<Item = Cap> {
        Cap::ALL.iter().copied().filter(move |c| self.contains(*c))
    }
}

impl FromIterator<Cap> for CapSet {
    fn from_iter<I: IntoIterator<Item = Cap>>(caps: I) -> CapSet {
        caps.into_iter().fold(CapSet::EMPTY, |set, c| set.union(c.bit()))
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == CapSet::FULL { f.write_str("{all}") } else { f.debug_set().entries(self.iter()).finish() }
    }
}

guest_struct! {
    /// `struct __user_cap_header_struct`, capget(2).
    CapHeader: 8 { version: u32, pid: i32 }
}
guest_struct! {
    /// `struct __user_cap_data_struct`, capget(2): one for version 1, two (low and high half) for versions 2 and 3.
    CapData: 12 { effective: u32, permitted: u32, inheritable: u32 }
}
consts! { "Versions of capget(2); the kernel writes the third back for an unknown one.", u32;
LINUX_CAPABILITY_VERSION_1 = 0x1998_0330,
LINUX_CAPABILITY_VERSION_2 = 0x2007_1026, LINUX_CAPABILITY_VERSION_3 = 0x2008_0522 }

impl CapData {
    /// The two halves of the sets for versions 2 and 3.
    #[must_use]
    pub const fn encode(effective: CapSet, permitted: CapSet, inheritable: CapSet) -> [CapData; 2] {
        [
            CapData { effective: effective.0 as u32, permitted: permitted.0 as u32, inheritable: inheritable.0 as u32 },
            CapData {
                effective: (effective.0 >> 32) as u32,
                permitted: (permitted.0 >> 32) as u32,
                inheritable: (inheritable.0 >> 32) as u32,
            },
        ]
    }

    /// Effective, permitted and inheritable set of two halves; bits without a capability are dropped.
    #[must_use]
    pub const fn decode(halves: [CapData; 2]) -> (CapSet, CapSet, CapSet) {
        let [lo, hi] = halves;
        (
            CapSet((lo.effective as u64) | (hi.effective as u64) << 32).intersection(CapSet::FULL),
            CapSet((lo.permitted as u64) | (hi.permitted as u64) << 32).intersection(CapSet::FULL),
            CapSet((lo.inheritable as u64) | (hi.inheritable as u64) << 32).intersection(CapSet::FULL),
        )
    }
}

guest_struct! {
    /// `struct vfs_ns_cap_data`, the xattr `security.capability` in revision 3; revision 2 is without `rootid`,
    /// little-endian.
    VfsNsCapData: 24 { magic_etc: u32, permitted_lo: u32, inheritable_lo: u32, permitted_hi: u32, inheritable_hi: u32,
        rootid: u32 }
}
consts! { "`magic_etc` of `security.capability`.", u32; VFS_CAP_REVISION_MASK = 0xff00_0000,
VFS_CAP_REVISION_1 = 0x0100_0000,
VFS_CAP_REVISION_2 = 0x0200_0000, VFS_CAP_REVISION_3 = 0x0300_0000, VFS_CAP_FLAGS_EFFECTIVE = 1 }

consts! { "Securebits, capabilities(7).", u32; SECBIT_NOROOT = 1, SECBIT_NOROOT_LOCKED = 2, SECBIT_NO_SETUID_FIXUP = 4,
SECBIT_NO_SETUID_FIXUP_LOCKED = 8, SECBIT_KEEP_CAPS = 16, SECBIT_KEEP_CAPS_LOCKED = 32,
SECBIT_NO_CAP_AMBIENT_RAISE = 64,
SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED = 128, SECBIT_EXEC_RESTRICT_FILE = 256, SECBIT_EXEC_RESTRICT_FILE_LOCKED = 512,
SECBIT_EXEC_DENY_INTERACTIVE = 1024, SECBIT_EXEC_DENY_INTERACTIVE_LOCKED = 2048, SECURE_ALL_BITS = 0x555,
SECURE_ALL_LOCKS = 0xaaa }
consts! { "Ids that mean \"leave as it is\" and \"nobody\", setresuid(2), user_namespaces(7).", u32;
ID_UNCHANGED = u32::MAX, OVERFLOW_ID = 65534 }
consts! { "Most supplementary groups, setgroups(2).", usize; NGROUPS_MAX = 65536 }

consts! { "keyctl(2) operations.", u32; KEYCTL_GET_KEYRING_ID = 0, KEYCTL_JOIN_SESSION_KEYRING = 1, KEYCTL_UPDATE = 2,
KEYCTL_REVOKE = 3,
KEYCTL_CHOWN = 4, KEYCTL_SETPERM = 5, KEYCTL_DESCRIBE = 6, KEYCTL_CLEAR = 7, KEYCTL_LINK = 8, KEYCTL_UNLINK = 9,
KEYCTL_SEARCH = 10,
KEYCTL_READ = 11 }
consts! { "Special key ids, keyctl(2).", i32; KEY_SPEC_THREAD_KEYRING = -1, KEY_SPEC_PROCESS_KEYRING = -2,
KEY_SPEC_SESSION_KEYRING = -3,
KEY_SPEC_USER_KEYRING = -4, KEY_SPEC_USER_SESSION_KEYRING = -5 }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_sets() {
        assert_eq!(Cap::ALL.len(), CAP_LAST_CAP as usize + 1);
        for (i, cap) in Cap::ALL.iter().enumerate() {
            assert_eq!(*cap as usize, i);
            assert_eq!(Cap::new(i as u64), Some(*cap));
            assert_eq!(Cap::from_name(&cap.name().to_lowercase()), Some(*cap));
        }
        assert_eq!(Cap::new(41), None);
        assert_eq!(Cap::new(u64::MAX), None);
        assert_eq!(CapSet::FULL.0, 0x1ff_ffff_ffff);
        assert_eq!(CapSet::FULL.iter().collect::<CapSet>(), CapSet::FULL);
    }

    #[test]
    fn data_round_trips() {
        let (e, p, i) = (Cap::BPF.bit(), CapSet::FULL, Cap::CHOWN.bit());
        assert_eq!(CapData::decode(CapData::encode(e, p, i)), (e, p, i));
    }
}
