//! mount(2) and the new mount calls.
//!
//! Source: `linux/mount.h`.

flag_set! {
    /// `MS_*` flags of mount(2).
    MsFlags: u64, "MS_" {
        RDONLY = 1, NOSUID = 2, NODEV = 4, NOEXEC = 8, SYNCHRONOUS = 16, REMOUNT = 32, MANDLOCK = 64, DIRSYNC = 128,
        NOSYMFOLLOW = 256,
        NOATIME = 1024, NODIRATIME = 2048, BIND = 4096, MOVE = 8192, REC = 16384, SILENT = 32768, POSIXACL = 1 << 16,
        UNBINDABLE = 1 << 17,
        PRIVATE = 1 << 18, SLAVE = 1 << 19, SHARED = 1 << 20, RELATIME = 1 << 21, KERNMOUNT = 1 << 22,
        I_VERSION = 1 << 23, STRICTATIME = 1 << 24,
        LAZYTIME = 1 << 25,
    }
}
consts! { "The old magic in the high half of mount(2)'s flags, dropped if present.", u64; MS_MGC_VAL = 0xc0ed_0000,
MS_MGC_MSK = 0xffff_0000 }
consts! { "umount2(2) flags.", u32; MNT_FORCE = 1, MNT_DETACH = 2, MNT_EXPIRE = 4, UMOUNT_NOFOLLOW = 8 }
consts! { "open_tree(2) flags.", u32; OPEN_TREE_CLONE = 1, OPEN_TREE_CLOEXEC = 0o2_000_000 }
consts! { "move_mount(2) flags.", u32; MOVE_MOUNT_F_SYMLINKS = 1, MOVE_MOUNT_F_AUTOMOUNTS = 2,
MOVE_MOUNT_F_EMPTY_PATH = 4,
MOVE_MOUNT_T_SYMLINKS = 0x10, MOVE_MOUNT_T_AUTOMOUNTS = 0x20, MOVE_MOUNT_T_EMPTY_PATH = 0x40,
MOVE_MOUNT_SET_GROUP = 0x100, MOVE_MOUNT_BENEATH = 0x200 }
consts! { "fsopen(2), fsmount(2) and fspick(2) flags.", u32; FSOPEN_CLOEXEC = 1, FSMOUNT_CLOEXEC = 1,
FSPICK_CLOEXEC = 1, FSPICK_SYMLINK_NOFOLLOW = 2,
FSPICK_NO_AUTOMOUNT = 4, FSPICK_EMPTY_PATH = 8 }
consts! { "fsconfig(2) commands.", u32; FSCONFIG_SET_FLAG = 0, FSCONFIG_SET_STRING = 1, FSCONFIG_SET_BINARY = 2,
FSCONFIG_SET_PATH = 3,
FSCONFIG_SET_PATH_EMPTY = 4, FSCONFIG_SET_FD = 5, FSCONFIG_CMD_CREATE = 6, FSCONFIG_CMD_RECONFIGURE = 7,
FSCONFIG_CMD_CREATE_EXCL = 8 }
consts! { "Mount attributes of fsmount(2) and mount_setattr(2).", u64; MOUNT_ATTR_RDONLY = 1, MOUNT_ATTR_NOSUID = 2,
MOUNT_ATTR_NODEV = 4,
MOUNT_ATTR_NOEXEC = 8, MOUNT_ATTR_ATIME = 0x70, MOUNT_ATTR_RELATIME = 0, MOUNT_ATTR_NOATIME = 0x10,
MOUNT_ATTR_STRICTATIME = 0x20,
MOUNT_ATTR_NODIRATIME = 0x80, MOUNT_ATTR_IDMAP = 0x10_0000, MOUNT_ATTR_NOSYMFOLLOW = 0x20_0000 }
guest_struct! {
    /// `struct mount_attr`, mount_setattr(2).
    MountAttr: 32 { attr_set: u64, attr_clr: u64, propagation: u64, userns_fd: u64 }
}
guest_struct! {
    /// `struct mnt_id_req`, statmount(2) and listmount(2), version 1; version 0 ends before `mnt_ns_id`.
    MntIdReq: 32 { size: u32, spare: u32, mnt_id: u64, param: u64, mnt_ns_id: u64 }
}
