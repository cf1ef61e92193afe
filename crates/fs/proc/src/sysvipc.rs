//! /proc/sysvipc: the System V objects of the mounter's IPC namespace, proc_pid_ipc and `ipc/*.c`.

use std::fmt::Write;
use std::sync::Arc;

use moat_abi::Result;
use moat_abi::ipc::Ipc64Perm;
use moat_ipc::SystemV;
use moat_vfs::cred::Credentials;
use moat_vfs::generated::{Attributes, Table, TableDir, Text, TextFile};
use moat_vfs::inode::Inode;

use crate::mount::ProcMount;

type Show = fn(&SystemV) -> String;

const FILES: [(&str, Show); 3] = [("msg", messages), ("sem", semaphores), ("shm", segments)];

fn owners(p: &Ipc64Perm) -> String {
    format!("{:5} {:5} {:5} {:5}", p.uid, p.gid, p.cuid, p.cgid)
}

fn messages(ns: &SystemV) -> String {
    let mut o = String::from(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
    );
    for (id, q) in ns.msg.snapshot() {
        let p = &q.msg_perm;
        let _ = writeln!(
            o,
            "{:10} {id:10}  {:4o}  {:10} {:10} {:5} {:5} {} {:10} {:10} {:10}",
            p.key,
            p.mode,
            q.msg_cbytes,
            q.msg_qnum,
            q.msg_lspid,
            q.msg_lrpid,
            owners(p),
            q.msg_stime,
            q.msg_rtime,
            q.msg_ctime
        );
    }
    o
}

fn semaphores(ns: &SystemV) -> String {
    let mut o = String::from("       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n");
    for (id, s) in ns.sem.snapshot() {
        let p = &s.sem_perm;
        let _ = writeln!(
            o,
            "{:10} {id:10}  {:4o} {:10} {} {:10} {:10}",
            p.key,
            p.mode,
            s.sem_nsems,
            owners(p),
            s.sem_otime,
            s.sem_ctime
        );
    }
    o
}

fn segments(ns: &SystemV) -> String {
    let mut o = String::from(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
    );
    for (id, s, resident_pages) in ns.shm.snapshot() {
        let p = &s.shm_perm;
        // In the last column 0: nobody knows what of it the host has swapped out.
        let rss = resident_pages.saturating_mul(moat_mm::PAGE_SIZE);
        let _ = writeln!(
            o,
            "{:10} {id:10}  {:4o} {:21} {:5} {:5}  {:5} {} {:10} {:10} {:10} {rss:21} {:21}",
            p.key,
            p.mode,
            s.shm_segsz,
            s.shm_cpid,
            s.shm_lpid,
            s.shm_nattch,
            owners(p),
            s.shm_atime,
            s.shm_dtime,
            s.shm_ctime,
            0
        );
    }
    o
}

struct Shown(Show, Arc<SystemV>);

impl Text for Shown {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        Ok(self.0(&self.1).into_bytes())
    }
}

struct Files {
    proc: ProcMount,
}

pub(crate) fn root(proc: &ProcMount) -> Arc<dyn Inode> {
    TableDir::root(Files { proc: proc.clone() })
}

impl Table for Files {
    fn paths(&self) -> Vec<String> {
        FILES.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn file(&self, path: &str) -> Arc<dyn Inode> {
        let show = FILES.iter().find(|(name, _)| *name == path).map_or(messages as Show, |(_, show)| *show);
        TextFile::new(
            self.proc.attributes(("sysvipc", path), 0o444),
            Shown(show, SystemV::of(&self.proc.namespaces.ipc)),
        )
    }

    fn dir_attributes(&self, path: &str) -> Attributes {
        self.proc.attributes(("sysvipc", path), 0o555)
    }
}
