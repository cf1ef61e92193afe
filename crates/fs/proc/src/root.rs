//! The top directory of proc.

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_vfs::caller::Caller;
use moat_vfs::generated::{Attributes, Entry, FixedLink, Listing, Made, TextFile};
use moat_vfs::inode::{Inode, Metadata};

use crate::locks::Locks;
use crate::mount::ProcMount;
use crate::process::ProcessDir;
use crate::system::{Machine, Make};
use crate::who::{Kind, Who, parse_pid};
use crate::{sysctl, system, sysvipc};

/// The listing of /proc.
pub struct Root {
    proc: ProcMount,
}

impl Root {
    pub(crate) fn new(proc: ProcMount) -> Root {
        Root { proc }
    }

    fn link(&self, name: &str, target: &str) -> Arc<dyn Inode> {
        FixedLink::new(self.proc.attributes(name, 0o777), target.as_bytes())
    }
}

const LINKS: [(&str, &str); 2] = [("mounts", "self/mounts"), ("net", "self/net")];
const CALLER_LINKS: [(&str, Which); 2] = [("self", Which::Process), ("thread-self", Which::Thread)];

impl Listing for Root {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        // Numbers first: they are by far the most that is asked for.
        if let Some(pid) = parse_pid(name) {
            let who = Who::find(&self.proc, pid, Kind::Process)?;
            return Ok(ProcessDir::inode(&self.proc, who));
        }
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        if let Some((_, target)) = LINKS.iter().find(|(n, _)| *n == name) {
            return Ok(self.link(name, target));
        }
        if let Some((_, which)) = CALLER_LINKS.iter().find(|(n, _)| *n == name) {
            return Ok(Arc::new(CallerLink {
                proc: self.proc.clone(),
                attributes: self.proc.attributes(name, 0o777),
                which: *which,
            }));
        }
        if name == "sys" {
            return Ok(sysctl::root(&self.proc));
        }
        if name == "sysvipc" {
            return Ok(sysvipc::root(&self.proc));
        }
        if name == "locks" {
            return Ok(TextFile::new(self.proc.attributes(name, 0o444), Locks { proc: self.proc.clone() }));
        }
        let file = system::FILES.iter().find(|f| f.name == name).ok_or(Errno::ENOENT)?;
        let (proc, make) = (self.proc.clone(), file.make);
        // Made when it is read, not when it is found: an open file shows what holds then.
        let text = move || match make {
            Make::Kernel(make) => make(&proc.kernel),
            Make::Machine(make) => make(&Machine::of(&proc.kernel, &proc.namespaces)),
        };
        Ok(TextFile::new(self.proc.attributes(name, file.mode), Made(text)))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let mut add = |name: &str, file_type| {
            all.push(Entry { name: name.as_bytes().to_vec(), ino: self.proc.ino(name), file_type });
        };
        for (name, _) in CALLER_LINKS {
            add(name, FileType::Symlink);
        }
        for (name, _) in LINKS {
            add(name, FileType::Symlink);
        }
        add("sys", FileType::Directory);
        add("sysvipc", FileType::Directory);
        add("locks", FileType::Regular);
        for f in system::FILES {
            add(f.name, FileType::Regular);
        }
        for pid in self.proc.pid_ns.pids() {
            let number = pid.number_in(&self.proc.pid_ns);
            // Numbers of threads, and of groups without their leader, can be looked up but are not listed.
            if number > 0 && Who::find(&self.proc, number, Kind::Process).is_ok_and(|w| w.is_process()) {
                let ino = self.proc.ino((number, "pid"));
                all.push(Entry { name: number.to_string().into_bytes(), ino, file_type: FileType::Directory });
            }
        }
        Ok(all)
    }
}

#[derive(Clone, Copy)]
enum Which {
    Process,
    Thread,
}

/// /proc/self and /proc/thread-self.
struct CallerLink {
    proc: ProcMount,
    attributes: Attributes,
    which: Which,
}

impl Inode for CallerLink {
    fn metadata(&self) -> Result<Metadata> {
        Ok(self.attributes.metadata(FileType::Symlink))
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        // Depends on the caller: see `read_link_for`.
        Err(Errno::ENOENT)
    }

    fn read_link_for(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        let t = caller.task().ok_or(Errno::ENOENT)?;
        let tgid = t.process_pid().number_in(&self.proc.pid_ns);
        // The caller is in another pid namespace than this /proc.
        if tgid <= 0 {
            return Err(Errno::ENOENT);
        }
        Ok(match self.which {
            Which::Process => tgid.to_string(),
            Which::Thread => format!("{tgid}/task/{}", t.thread_pid().number_in(&self.proc.pid_ns)),
        }
        .into_bytes())
    }
}
