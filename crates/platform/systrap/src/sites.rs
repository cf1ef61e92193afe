//! [`Sites`]: the call sites of a process that have been rewritten to enter the sentry without a signal.
//!
//! A site is `mov eax, imm32; syscall`, or `mov r9, [rsp + 8]; syscall` of glibc's `syscall()`: seven bytes, which become a
//! jump through a table in low memory ([`site::JUMP`]) to the stub's code (`stub/src/program/call.rs`). Who jumps to where the
//! `syscall` instruction was meets an undefined instruction, and the call is made as it would have trapped.
//!
//! Text is written by way of /proc/PID/mem, which gives the process a private copy of the page, only while no thread of the
//! process runs application code. What is put back (before the guest can write there) is put back while others run, first byte
//! last, with an undefined instruction in its place meanwhile, at which threads try again.
//!
//! # Invariants
//! - What the list says is believed only if the guest's memory says the same: mappings come and go without its knowledge.
//! - A number is given to one site of a process and never to another, also not in its children, since a thread may be
//!   on its way through the stub.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use moat_abi::{Errno, Result, nr};
use moat_stub::layout::{JUMP_TABLE, MAX_SITES, SITES, site};
use moat_sync::{LockClass, Mutex};

use crate::space::Space;

/// Site bytes.
type Bytes = [u8; site::LEN];

const SYSCALL: [u8; 2] = [0x0f, 0x05];
const MOV_EAX: u8 = 0xb8;
/// `mov r9, [rsp + 8]`
const LOAD_R9: [u8; 5] = [0x4c, 0x8b, 0x4c, 0x24, 0x08];
/// An undefined instruction of one byte.
const UNDEFINED: u8 = 0x06;

/// In [`Sites::running`]: text is being rewritten, nobody may go on.
const REWRITING: u32 = 1 << 31;
/// Text is being put back.
const RESTORING: u32 = 1 << 30;

/// Calls that need the thread's whole state, or orders: a trap is the shorter way to them.
const TRAPPED: [u32; 22] = [
    nr::MMAP,
    nr::MPROTECT,
    nr::MUNMAP,
    nr::BRK,
    nr::RT_SIGRETURN,
    nr::MREMAP,
    nr::MADVISE,
    nr::PAUSE,
    nr::CLONE,
    nr::FORK,
    nr::VFORK,
    nr::EXECVE,
    nr::EXIT,
    nr::PTRACE,
    nr::RT_SIGSUSPEND,
    nr::MLOCK,
    nr::ARCH_PRCTL,
    nr::EXIT_GROUP,
    nr::EXECVEAT,
    nr::MLOCK2,
    nr::RSEQ,
    nr::CLONE3,
];

/// Whether a call is better made with a signal frame.
pub fn needs_frame(nr: u64) -> bool {
    TRAPPED.iter().any(|trapped| u64::from(*trapped) == nr & 0xffff_ffff)
}

#[derive(Clone, Copy)]
struct Site {
    number: u32,
    original: Bytes,
}

impl Site {
    fn patch(self) -> Bytes {
        let mut bytes = [0; site::LEN];
        bytes[..3].copy_from_slice(&site::JUMP);
        let entry = JUMP_TABLE + u64::from(self.number) * 8;
        bytes[3..].copy_from_slice(&(entry as u32).to_le_bytes());
        bytes
    }
}

#[derive(Clone, Default)]
struct List {
    sites: BTreeMap<u64, Site>,
    next: u32,
    kept: bool,
}

/// The rewritten call sites of one process.
pub struct Sites {
    list: Mutex<List>,
    /// There are some.
    any: AtomicBool,
    /// Threads that run application code or orders, with the bits above.
    running: AtomicU32,
}

/// What an undefined instruction of application code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undefined {
    /// A jump to where a rewritten site's `syscall` was: go on behind it at this address.
    Call(u64),
    /// A site that was being put back: try again.
    Again,
    /// The application's own.
    Fault,
}

impl Sites {
    /// Those of a new process: its parent's.
    pub fn new(parent: Option<&Sites>) -> Sites {
        let list = parent.map_or_else(List::default, |parent| parent.list.lock().clone());
        let any = AtomicBool::new(!list.sites.is_empty());
        Sites { list: Mutex::new(LockClass::Platform, list), any, running: AtomicU32::new(0) }
    }

    /// Whether any site has been rewritten.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// A thread goes on. Waits while text is being rewritten, some microseconds.
    pub fn enter(&self) {
        while self.running.fetch_add(1, Ordering::AcqRel) & REWRITING != 0 {
            self.running.fetch_sub(1, Ordering::AcqRel);
            while self.running.load(Ordering::Acquire) & REWRITING != 0 {
                std::thread::yield_now();
            }
        }
    }

    /// A thread has stopped or died.
    pub fn leave(&self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }

    /// Waits until nobody else writes text.
    fn begin_restoring(&self) {
        loop {
            let running = self.running.load(Ordering::Acquire);
            let free = running & (REWRITING | RESTORING) == 0;
            let marked = running | RESTORING;
            let exchange =
                || self.running.compare_exchange(running, marked, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if free && exchange() {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn end(&self, bit: u32) {
        self.running.fetch_and(!bit, Ordering::AcqRel);
    }

    /// The sites that reach into a range.
    fn within(&self, start: u64, end: u64) -> Vec<(u64, Site)> {
        if !self.any() {
            return Vec::new();
        }
        let first = start.saturating_sub(site::LEN as u64 - 1);
        let list = self.list.lock();
        list.sites.range(first..end.max(first)).map(|(at, site)| (*at, *site)).collect()
    }
}

/// The word that the stub finds for a site, if its bytes can be rewritten.
fn word_of(bytes: &Bytes, behind: u64) -> Option<u64> {
    if bytes[site::SYSCALL..] != SYSCALL || behind >> site::NUMBER_SHIFT != 0 {
        return None;
    }
    if bytes[..site::SYSCALL] == LOAD_R9 {
        return Some(site::GENERIC << site::NUMBER_SHIFT | behind);
    }
    let number = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    let fits = bytes[0] == MOV_EAX && u64::from(number) < site::GENERIC && !needs_frame(number.into());
    fits.then_some(u64::from(number) << site::NUMBER_SHIFT | behind)
}

impl Space {
    fn read_site(&self, at: u64) -> Option<Bytes> {
        let mut bytes = [0; site::LEN];
        let read = moat_host::memory::read(self.pid, at, &mut bytes).ok()?;
        (read == bytes.len()).then_some(bytes)
    }

    fn text(&self) -> Result<File> {
        Ok(File::from(moat_host::procfs::open_memory(self.pid)?))
    }

    /// Rewrites the site that ends before `behind`, if it is one and no thread of the process runs.
    pub fn rewrite(&self, behind: u64) {
        let sites = &self.sites;
        let Some(at) = behind.checked_sub(site::LEN as u64) else { return };
        // One page, so that the write is made or not.
        if !self.core.rewrites || at / moat_platform::PAGE_SIZE != (behind - 1) / moat_platform::PAGE_SIZE {
            return;
        }
        let Some(original) = self.read_site(at) else { return };
        let Some(word) = word_of(&original, behind) else { return };
        if sites.running.compare_exchange(0, REWRITING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        let _ = self.write_site(at, original, word);
        sites.end(REWRITING);
    }

    fn write_site(&self, at: u64, original: Bytes, word: u64) -> Result<()> {
        let site = {
            let mut list = self.sites.list.lock();
            // The same bytes in the same place have the same word.
            let known = list.sites.get(&at).filter(|known| known.original == original).map(|known| known.number);
            let number = known.unwrap_or(list.next);
            if list.kept || number >= MAX_SITES {
                return Err(Errno::ENOSPC);
            }
            list.next = list.next.max(number + 1);
            Site { number, original }
        };
        let text = self.text()?;
        let io = |_| Errno::EFAULT;
        text.write_all_at(&word.to_le_bytes(), SITES + u64::from(site.number) * 8).map_err(io)?;
        // Listed before it is there: what is listed counts only if it is there.
        self.sites.list.lock().sites.insert(at, site);
        self.sites.any.store(true, Ordering::Release);
        text.write_all_at(&site.patch(), at).map_err(io)
    }

    /// Puts the application's text back where it is rewritten in a range, while other threads may run.
    pub fn restore(&self, start: u64, end: u64) {
        let sites = self.sites.within(start, end);
        if sites.is_empty() {
            return;
        }
        self.sites.begin_restoring();
        if let Ok(text) = self.text() {
            for (at, site) in sites {
                if self.read_site(at) == Some(site.patch()) {
                    let _ = text.write_all_at(&[UNDEFINED], at);
                    let _ = text.write_all_at(&site.original[1..], at + 1);
                    let _ = text.write_all_at(&site.original[..1], at);
                }
            }
        }
        self.sites.end(RESTORING);
    }

    /// Undoes all rewriting for good.
    pub fn keep_text(&self) {
        self.sites.list.lock().kept = true;
        self.restore(0, u64::MAX);
    }

    /// Puts into what was read from `addr` on the bytes that were there before rewriting.
    pub fn show_original(&self, addr: u64, buf: &mut [u8]) {
        for (at, site) in self.sites.within(addr, addr.saturating_add(buf.len() as u64)) {
            // What was read, where all of the site was.
            let within = at.checked_sub(addr).and_then(|i| buf.get(usize::try_from(i).ok()?..)?.get(..site::LEN));
            let rewritten = match within {
                Some(bytes) => *bytes == site.patch(),
                None => self.read_site(at) == Some(site.patch()),
            };
            if !rewritten {
                continue;
            }
            for (byte, shown) in (at..).zip(site.original) {
                let place = byte.checked_sub(addr).and_then(|i| buf.get_mut(usize::try_from(i).ok()?));
                if let Some(place) = place {
                    *place = shown;
                }
            }
        }
    }

    /// What an undefined instruction at `rip` is.
    pub fn undefined(&self, rip: u64) -> Undefined {
        for (at, site) in self.sites.within(rip, rip.saturating_add(1)) {
            let found = self.read_site(at);
            let behind = at + site::LEN as u64;
            if rip == at + site::SYSCALL as u64 && found == Some(site.patch()) {
                return Undefined::Call(behind);
            }
            if found == Some(site.original) && (rip == at || rip == at + site::SYSCALL as u64) {
                return Undefined::Again;
            }
        }
        Undefined::Fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_told_from_other_code() {
        let behind = 0x1234_5678;
        let getppid = [0xb8, 110, 0, 0, 0, 0x0f, 0x05];
        assert_eq!(word_of(&getppid, behind), Some(110 << 48 | behind));
        let generic = [0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05];
        assert_eq!(word_of(&generic, behind), Some(0xffff << 48 | behind));
        for other in [
            [0xb8, 110, 0, 0, 0, 0x0f, 0x34],
            [0xb9, 110, 0, 0, 0, 0x0f, 0x05],
            [0xb8, 110, 0, 1, 0, 0x0f, 0x05],
            [0xb8, 0xff, 0xff, 0, 0, 0x0f, 0x05],
            [0xb8, 56, 0, 0, 0, 0x0f, 0x05],
            [0xb8, 15, 0, 0, 0, 0x0f, 0x05],
            [0x4c, 0x8b, 0x4c, 0x24, 0x10, 0x0f, 0x05],
        ] {
            assert_eq!(word_of(&other, behind), None, "{other:x?}");
        }
    }

    #[test]
    fn a_jump_to_the_old_call_is_undefined() {
        for number in [0, 1, 255, 256, MAX_SITES - 1] {
            let patch = Site { number, original: [0; 7] }.patch();
            assert_eq!((patch[site::SYSCALL], patch[6]), (UNDEFINED, 0));
            let entry = u32::from_le_bytes([patch[3], patch[4], patch[5], patch[6]]);
            assert_eq!(u64::from(entry), JUMP_TABLE + u64::from(number) * 8);
        }
    }
}
