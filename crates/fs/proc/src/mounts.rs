//! /proc/PID/mounts, mountinfo and mountstats, proc_pid_mounts(5), proc_pid_mountinfo(5).

use moat_abi::{Errno, Result};
use moat_vfs::mount::{Mount, MountFlags};
use moat_vfs::path::{Path, Reach};
use std::sync::Arc;

use crate::mount::ProcMount;
use crate::who::Who;

/// Adds a path; space, tab, newline and backslash as octal, all other bytes as they are, as `seq_path` does.
fn add_path(line: &mut Vec<u8>, path: &[u8]) {
    for &byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => line.extend(format!("\\{byte:03o}").as_bytes()),
            byte => line.push(byte),
        }
    }
}

/// Adds the name of a source: a path with # as octal, too, as `mangle` has it.
fn add_source(line: &mut Vec<u8>, source: &[u8]) {
    for (n, part) in source.split(|&byte| byte == b'#').enumerate() {
        if n > 0 {
            line.extend(b"\\043");
        }
        add_path(line, part);
    }
}

/// The mounts that the task's root shows, with the place of each.
fn visible(who: &Who) -> Result<Vec<(Arc<Mount>, Vec<u8>)>> {
    let fs = who.task()?.fs_of().ok_or(Errno::EINVAL)?;
    let (root, namespace) = {
        let fs = fs.lock();
        (fs.root.clone(), fs.namespace.clone())
    };
    let mut all = Vec::new();
    for mount in namespace.mounts() {
        let place = Path { dentry: mount.root().clone(), mount: mount.clone() };
        let (text, reach) = place.trace(Some(&root));
        // What the root does not reach is left out, as by `show_vfsmnt`.
        if reach == Reach::Inside {
            all.push((mount, text));
        }
    }
    Ok(all)
}

/// Which part of its file system a mount shows.
fn inside_text(m: &Mount) -> Vec<u8> {
    // A namespace has a name, but no place in a tree (`nsfs_show_path`).
    if m.root().is_anonymous() {
        return m.root().name().to_vec();
    }
    let mut names = Vec::new();
    let mut at = Some(m.root().clone());
    while let Some(d) = at {
        at = d.parent();
        if at.is_some() {
            names.push(d.name().to_vec());
        }
    }
    if names.is_empty() {
        return b"/".to_vec();
    }
    names.iter().rev().flat_map(|n| [b"/".as_slice(), n].concat()).collect()
}

fn flags(m: MountFlags) -> String {
    let mut o = String::from(if m.contains(MountFlags::RDONLY) { "ro" } else { "rw" });
    for (flag, word) in [
        (MountFlags::NOSUID, "nosuid"),
        (MountFlags::NODEV, "nodev"),
        (MountFlags::NOEXEC, "noexec"),
        (MountFlags::NOATIME, "noatime"),
        (MountFlags::NODIRATIME, "nodiratime"),
        (MountFlags::RELATIME, "relatime"),
        (MountFlags::NOSYMFOLLOW, "nosymfollow"),
    ] {
        if m.contains(flag) {
            o.push(',');
            o += word;
        }
    }
    o
}

/// The contents of `mounts`.
///
/// # Errors
/// ESRCH; EINVAL for a zombie.
pub(crate) fn mounts(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let mut o = Vec::new();
    for (m, place) in visible(who)? {
        let fs = m.fs();
        add_source(&mut o, m.source());
        o.push(b' ');
        add_path(&mut o, &place);
        o.extend(format!(" {} {}{} 0 0\n", fs.name(), flags(m.flags()), fs.show_options()).as_bytes());
    }
    Ok(o)
}

/// The contents of `mountinfo`.
///
/// # Errors
/// As [`mounts`].
pub(crate) fn mountinfo(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let mut o = Vec::new();
    for (m, place) in visible(who)? {
        let fs = m.fs();
        let dev = fs.dev();
        let parent = m.mountpoint().map_or(0, |p| p.mount.id());
        o.extend(format!("{} {parent} {}:{} ", m.id(), dev.major, dev.minor).as_bytes());
        add_path(&mut o, &inside_text(&m));
        o.push(b' ');
        add_path(&mut o, &place);
        o.extend(format!(" {} - {} ", flags(m.flags()), fs.name()).as_bytes());
        add_source(&mut o, m.source());
        // Mounts alone are read-only here; the field for the file system says the same.
        let access = if m.flags().contains(MountFlags::RDONLY) { "ro" } else { "rw" };
        o.extend(format!(" {access}{}\n", fs.show_options()).as_bytes());
    }
    Ok(o)
}

/// The contents of `mountstats`.
///
/// # Errors
/// As [`mounts`].
pub(crate) fn mountstats(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let mut o = Vec::new();
    for (m, place) in visible(who)? {
        o.extend(b"device ");
        add_source(&mut o, m.source());
        o.extend(b" mounted on ");
        add_path(&mut o, &place);
        o.extend(format!(" with fstype {}\n", m.fs().name()).as_bytes());
    }
    Ok(o)
}
