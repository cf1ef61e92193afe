//! /proc/PID/uid_map, gid_map and setgroups: user_namespaces(7).
//!
//! Source: `map_write`, `new_idmap_permitted`, `proc_setgroups_write` in `kernel/user_namespace.c`. Who writes is whoever has
//! opened the file: a program that is given the descriptor lends nothing of its own privileges.

use std::fmt::Write;
use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::{Errno, Result};
use moat_identity::user_ns::Setfcap;
use moat_vfs::caller::Caller;
use moat_vfs::cred::{Credentials, IdMaps, IdRange, UserNamespace};
use moat_vfs::generated::{Text, TextFile};
use moat_vfs::inode::Inode;

use crate::mount::ProcMount;
use crate::who::{Who, owned};

/// Lines of a map, at most.
const MAX_RANGES: usize = 340;
/// A write has to be shorter than a page.
const MAX_BYTES: usize = 4096;

/// The file, which has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Uid,
    Gid,
    Setgroups,
}

/// The names in /proc/PID.
pub(crate) const NAMES: [&str; 3] = ["gid_map", "setgroups", "uid_map"];

pub(crate) fn lookup(proc: &ProcMount, who: &Who, name: &str) -> Option<Arc<dyn Inode>> {
    let kind = match name {
        "uid_map" => Kind::Uid,
        "gid_map" => Kind::Gid,
        "setgroups" => Kind::Setgroups,
        _ => return None,
    };
    let namespace = who.task().ok()?.creds().user_ns.clone();
    Some(TextFile::new(owned(proc, who, name, 0o644), MapText { kind, who: who.clone(), namespace }))
}

struct MapText {
    kind: Kind,
    who: Who,
    /// That of the task when the file was opened: it may move on, the file stays with it.
    namespace: Arc<UserNamespace>,
}

impl Text for MapText {
    fn read(&self, caller: &Credentials) -> Result<Vec<u8>> {
        let own = Arc::ptr_eq(&caller.user_ns, &self.namespace);
        // The first namespace of a container that has a map by its configuration: outside is the host.
        let maps = if own { self.namespace.shown_maps() } else { self.namespace.maps() };
        Ok(match self.kind {
            Kind::Setgroups if maps.setgroups_denied => b"deny\n".to_vec(),
            Kind::Setgroups => b"allow\n".to_vec(),
            Kind::Uid => self.show(caller, maps.uid.as_deref()),
            Kind::Gid => self.show(caller, maps.gid.as_deref()),
        })
    }

    fn write(&self, caller: &Credentials, data: &[u8]) -> Result<()> {
        match self.kind {
            Kind::Setgroups => self.set_setgroups(data),
            Kind::Uid | Kind::Gid => self.set_map(caller, data),
        }
    }

    fn may_open_to_write(&self, caller: &dyn Caller) -> Result<()> {
        let namespace = self.who.task()?.creds().user_ns.clone();
        let fine = self.kind != Kind::Setgroups || caller.creds().has_cap_in(&namespace, Cap::SYS_ADMIN);
        if fine { Ok(()) } else { Err(Errno::EACCES) }
    }

    fn opened_by(self: Arc<Self>, _caller: &dyn Caller) -> Arc<MapText> {
        // The inode may have been known before the task went where it is.
        let Ok(task) = self.who.task() else { return self };
        let namespace = task.creds().user_ns.clone();
        Arc::new(MapText { kind: self.kind, who: self.who.clone(), namespace })
    }
}

impl MapText {
    /// The lines as the reader's own namespace has the ids outside; as the parent has them for the namespace itself.
    fn show(&self, reader: &Credentials, ranges: Option<&[IdRange]>) -> Vec<u8> {
        let own = Arc::ptr_eq(&reader.user_ns, &self.namespace);
        // Seen from inside, the outer ids are those of the parent; from elsewhere, what the reader calls them
        // (`uid_m_show`).
        let outside = if own { self.namespace.parent.as_ref() } else { Some(&reader.user_ns) };
        let shown = |id: u32| match (outside, self.kind) {
            (None, _) => id,
            (Some(ns), Kind::Gid) => ns.find_gid(id).unwrap_or(u32::MAX),
            (Some(ns), _) => ns.find_uid(id).unwrap_or(u32::MAX),
        };
        let mut o = String::new();
        for r in ranges.unwrap_or(&[]) {
            let _ = writeln!(o, "{:>10} {:>10} {:>10}", r.inside, shown(r.outside), r.count);
        }
        o.into_bytes()
    }

    fn set_map(&self, writer: &Credentials, data: &[u8]) -> Result<()> {
        let ns = &self.namespace;
        let parent = ns.parent.as_ref().ok_or(Errno::EPERM)?;
        if !Arc::ptr_eq(&writer.user_ns, ns) && !Arc::ptr_eq(&writer.user_ns, parent) {
            return Err(Errno::EPERM);
        }
        if data.len() >= MAX_BYTES {
            return Err(Errno::EINVAL);
        }
        // A map is written once and for all: what has been given an id by it must keep that.
        if self.is_set(&ns.maps()) || !writer.has_cap_in(ns, Cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let ranges = parse(data)?;
        if !self.is_permitted(writer, parent, &ranges) {
            return Err(Errno::EPERM);
        }
        // Kept as ids of the first namespace, which never change, however the ones between are seen.
        let known = if self.kind == Kind::Uid { parent.kernel_uids(&ranges) } else { parent.kernel_gids(&ranges) };
        let known = known.ok_or(Errno::EPERM)?;
        ns.change_maps(|maps| {
            // Another writer may have been faster, and setgroups may have been allowed when the map was judged by it.
            if self.is_set(maps) {
                return Err(Errno::EPERM);
            }
            match self.kind {
                Kind::Uid => maps.uid = Some(known),
                _ => maps.gid = Some(known),
            }
            Ok(())
        })
    }

    fn is_set(&self, maps: &IdMaps) -> bool {
        match self.kind {
            Kind::Uid => maps.uid.is_some(),
            _ => maps.gid.is_some(),
        }
    }

    /// Whether `writer` may give these ids to the namespace (`new_idmap_permitted`).
    fn is_permitted(&self, writer: &Credentials, parent: &Arc<UserNamespace>, ranges: &[IdRange]) -> bool {
        if self.kind == Kind::Uid && !self.may_map_root(writer, parent, ranges) {
            return false;
        }
        // Everybody may give away its own id, alone: it gains nothing by that.
        if let [IdRange { outside, count: 1, .. }] = ranges
            && self.namespace.owner.0 == writer.euid
        {
            let own = match self.kind {
                Kind::Uid => parent.kernel_uid(*outside) == Some(writer.euid),
                // Unless a group takes rights away, which setgroups(2) could drop.
                _ => self.namespace.maps().setgroups_denied && parent.kernel_gid(*outside) == Some(writer.egid),
            };
            if own {
                return true;
            }
        }
        let cap = if self.kind == Kind::Uid { Cap::SETUID } else { Cap::SETGID };
        writer.has_cap_in(parent, cap)
    }

    /// Whether the parent's root may be among the ids: files that it owns could be given capabilities (`verify_root_map`).
    fn may_map_root(&self, writer: &Credentials, parent: &Arc<UserNamespace>, ranges: &[IdRange]) -> bool {
        if ranges.iter().all(|r| r.outside != 0) {
            true
        } else if Arc::ptr_eq(&writer.user_ns, &self.namespace) {
            self.namespace.maker == Setfcap::Held
        } else {
            writer.has_cap_in(parent, Cap::SETFCAP)
        }
    }

    fn set_setgroups(&self, data: &[u8]) -> Result<()> {
        let deny = match data.trim_ascii_end() {
            b"deny" if data.len() < 8 => true,
            b"allow" if data.len() < 8 => false,
            _ => return Err(Errno::EINVAL),
        };
        self.namespace.change_maps(|maps| {
            // What is denied stays denied, and a map that was written with it allowed relies on that.
            let late = if deny { maps.gid.is_some() } else { maps.setgroups_denied };
            if late {
                return Err(Errno::EPERM);
            }
            maps.setgroups_denied = deny;
            Ok(())
        })
    }
}

/// The lines of a map: three numbers each, ranges that do not overlap.
fn parse(data: &[u8]) -> Result<Vec<IdRange>> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    // A line may end without a newline, the text not with a line that is empty.
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut ranges: Vec<IdRange> = Vec::new();
    for line in text.split('\n') {
        let mut words = line.split([' ', '\t']).filter(|w| !w.is_empty());
        let mut number = || words.next().and_then(|w| w.parse::<u32>().ok()).ok_or(Errno::EINVAL);
        let r = IdRange { inside: number()?, outside: number()?, count: number()? };
        if words.next().is_some() || ranges.len() >= MAX_RANGES {
            return Err(Errno::EINVAL);
        }
        let end = |first: u32| first.checked_add(r.count).filter(|end| *end > first).ok_or(Errno::EINVAL);
        let (inside_end, outside_end) = (end(r.inside)?, end(r.outside)?);
        let overlaps = |o: &IdRange| {
            let apart = |a: u32, a_end: u32, b: u32| a_end <= b || b.saturating_add(o.count) <= a;
            !apart(r.inside, inside_end, o.inside) || !apart(r.outside, outside_end, o.outside)
        };
        if ranges.iter().any(overlaps) {
            return Err(Errno::EINVAL);
        }
        ranges.push(r);
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        assert_eq!(parse(b"0 1000 1"), Ok(vec![range(0, 1000, 1)]));
        assert_eq!(parse(b"  0 1000 1\n1\t100000  65536 \n"), Ok(vec![range(0, 1000, 1), range(1, 100_000, 65536)]));
        let bad: [&[u8]; 12] = [
            b"",
            b"\n",
            b"0 0",
            b"0 0 0",
            b"0 0 1 1",
            b"x 0 1",
            b"-1 0 1",
            b"4294967295 0 1",
            b"0 4294967290 10",
            b"0 0 10\n5 100 1",
            b"0 100 10\n50 105 1",
            b"0 0 1\n\n1 1 1",
        ];
        for text in bad {
            assert_eq!(parse(text), Err(Errno::EINVAL), "{}", String::from_utf8_lossy(text));
        }
        let many = |n: u32| (0..n).map(|i| format!("{i} {i} 1\n")).collect::<String>();
        assert_eq!(parse(many(340).as_bytes()).map(|r| r.len()), Ok(340));
        assert_eq!(parse(many(341).as_bytes()), Err(Errno::EINVAL));
    }
}
