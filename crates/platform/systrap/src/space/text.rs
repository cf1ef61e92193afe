//! The text of a guest process, as far as call sites in it are rewritten and put back.

use std::fs::File;
use std::os::unix::fs::FileExt;

use moat_abi::{Errno, Result};
use moat_stub::layout::site;

use crate::sites::{Bytes, UNDEFINED, Undefined, word_of};
use crate::space::Space;

impl Space {
    fn read_site(&self, at: u64) -> Option<Bytes> {
        let mut bytes = Bytes::default();
        let read = moat_host::memory::read(self.pid, at, &mut bytes).ok()?;
        (read == bytes.len()).then_some(bytes)
    }

    fn text(&self) -> Result<File> {
        Ok(File::from(moat_host::procfs::open_memory(self.pid)?))
    }

    /// Rewrites the site that ends before `behind`, if it is one and no thread of the process runs.
    pub fn rewrite(&self, behind: u64) {
        let sites = &self.sites;
        let Some(at) = behind.checked_sub(site::LEN) else { return };
        // One page, so that the write is made or not.
        if !self.core.rewrites || at / moat_platform::PAGE_SIZE != behind.wrapping_sub(1) / moat_platform::PAGE_SIZE {
            return;
        }
        let Some(original) = self.read_site(at) else { return };
        let Some(word) = word_of(&original, behind) else { return };
        if !sites.begin_rewriting() {
            return;
        }
        let _ = self.write_site(at, original, word);
        sites.end_rewriting();
    }

    fn write_site(&self, at: u64, original: Bytes, word: u64) -> Result<()> {
        let site = self.sites.number(at, original)?;
        let text = self.text()?;
        let io = |_| Errno::EFAULT;
        text.write_all_at(&word.to_le_bytes(), site.word_at()).map_err(io)?;
        // Listed before it is there: what is listed counts only if it is there.
        self.sites.insert(at, site);
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
                    let _ = text.write_all_at(&site.original[1..], at.wrapping_add(1));
                    let _ = text.write_all_at(&site.original[..1], at);
                }
            }
        }
        self.sites.end_restoring();
    }

    /// Undoes all rewriting for good.
    pub fn keep_text(&self) {
        self.sites.keep();
        self.restore(0, u64::MAX);
    }

    /// Puts into what was read from `addr` on the bytes that were there before rewriting.
    pub fn show_original(&self, addr: u64, buf: &mut [u8]) {
        for (at, site) in self.sites.within(addr, addr.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX))) {
            // What was read, where all of the site was.
            let within =
                at.checked_sub(addr).and_then(|i| buf.get(usize::try_from(i).ok()?..)?.get(..Bytes::default().len()));
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
            let behind = at.wrapping_add(site::LEN);
            let call = at.wrapping_add(site::SYSCALL);
            if rip == call && found == Some(site.patch()) {
                return Undefined::Call(behind);
            }
            if found == Some(site.original) && (rip == at || rip == call) {
                return Undefined::Again;
            }
        }
        Undefined::Fault
    }
}
