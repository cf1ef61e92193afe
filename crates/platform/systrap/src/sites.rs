//! [`Sites`]: the call sites of a process that have been rewritten to enter the sentry without a signal.
//!
//! A site is `mov eax, imm32; syscall`, `mov r9, [rsp + 8]; syscall` of glibc's `syscall()`, or `mov [rsp + 8], r11; syscall` of musl's
//! cancellation points: seven bytes, which become a jump through a table in low memory ([`site::JUMP`]) to the stub's code (`stub/src/program/call.rs`). Who jumps to where the
//! `syscall` instruction was meets an undefined instruction, and the call is made as it would have trapped.
//!
//! Any other `syscall` is a short site: its two bytes become a short jump to bytes nearby that are never executed
//! ([`crate::padding`]) and that hold the jump through the table. Both are pieces of one site.
//!
//! Text is written by way of /proc/PID/mem, which gives the process a private copy of the page, at best while no thread of the
//! process runs application code. Where others run, the first byte becomes an undefined instruction, at which threads try
//! again, then the rest is written, and the first byte last; between these the host has every CPU that runs a guest pass
//! a barrier (membarrier(2)), so that none executes a mixture. A host without such barriers rewrites nothing while others run.
//! How that is done: `space/change.rs`.
//!
//! # Invariants
//! - What the list says is believed only if the guest's memory says the same: mappings come and go without its knowledge.
//! - A number is given to one site of a process and never to another, also not in its children, since a thread may be
//!   on its way through the stub.
//! - A jump in padding stays while a thread runs that may be about to execute it, also when its site has been put back. To everybody
//!   else such a thread is at the site, before its call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use moat_abi::{Errno, Result, nr};
use moat_stub::layout::{JUMP_TABLE, MAX_SITES, SITES, site};
use moat_sync::{LockClass, Mutex};

/// Site bytes.
pub type Bytes = [u8; 7];

/// Bytes of a site before its `syscall` instruction.
const FIRST: usize = 5;
/// The instruction.
pub const SYSCALL: [u8; 2] = [0x0f, 0x05];
const MOV_EAX: u8 = 0xb8;
/// `mov r9, [rsp + 8]`
const LOAD_R9: [u8; 5] = [0x4c, 0x8b, 0x4c, 0x24, 0x08];
/// `mov [rsp + 8], r11`
const STORE_R11: [u8; 5] = [0x4c, 0x89, 0x5c, 0x24, 0x08];
/// An undefined instruction of one byte.
pub const UNDEFINED: u8 = 0x06;

/// Text is being rewritten, nobody may go on.
const REWRITING: u32 = 1 << 31;
/// In [`Sites::running`]: text is being written while threads run.
const WRITING: u32 = 1 << 30;

/// Calls that need the thread's whole state, or orders that do: a trap is the shorter way to them.
const TRAPPED: [u32; 17] = [
    nr::RT_SIGRETURN,
    nr::MREMAP,
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

/// Where the stub finds the word of a site.
pub fn word_at(number: u32) -> u64 {
    SITES.wrapping_add(u64::from(number).wrapping_mul(8))
}

/// What bytes of a process's text have become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A site has become the jump through the table.
    Site,
    /// A short site has become a jump to padding, which is at this address.
    Short(u64),
    /// Padding has become the jump through the table, for the short site at this address.
    Padding(u64),
}

/// Bytes of a process's text that are others than they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where.
    pub at: u64,
    /// The number of their site.
    pub number: u32,
    /// What they are now.
    pub change: Change,
    original: Bytes,
}

impl Piece {
    /// The bytes at `at`, of which a short site has two.
    pub fn new(at: u64, number: u32, change: Change, original: Bytes) -> Piece {
        Piece { at, number, change, original }
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self.change {
            Change::Short(_) => SYSCALL.len(),
            Change::Site | Change::Padding(_) => self.original.len(),
        }
    }

    /// One past the last.
    pub fn end(&self) -> u64 {
        self.at.wrapping_add(match self.change {
            Change::Short(_) => site::SHORT_LEN,
            Change::Site | Change::Padding(_) => site::LEN,
        })
    }

    /// What was there, with bytes that count only if there are so many.
    pub fn before(&self) -> Bytes {
        self.original
    }

    /// What was there.
    pub fn original(&self) -> &[u8] {
        &self.original[..self.len()]
    }

    /// What is there instead.
    pub fn patch(&self) -> Bytes {
        let mut bytes = [0; 7];
        if let Change::Short(padding) = self.change {
            let by = padding.wrapping_sub(self.end());
            bytes[..2].copy_from_slice(&[site::SHORT_JUMP, by.to_le_bytes()[0]]);
            return bytes;
        }
        // The last bytes of the table's address lie where `syscall` was, and are no instruction: see `UNDEFINED`.
        bytes[..3].copy_from_slice(&site::JUMP);
        let entry = JUMP_TABLE.wrapping_add(u64::from(self.number).wrapping_mul(8));
        bytes[3..].copy_from_slice(&u32::try_from(entry).unwrap_or(0).to_le_bytes());
        bytes
    }

    /// Whether the bytes at `at` are a mixture of what was there and of what is to be there: they are just being written, or were
    /// when this process was made as a copy of another.
    pub fn is_torn(&self, found: &[u8]) -> bool {
        let either = self.original().iter().zip(self.patch());
        let mixed = |(byte, (original, patch)): (&u8, (&u8, u8))| byte == original || *byte == patch;
        let (Some((first, rest)), true) = (found.split_first(), found.len() == self.len()) else { return false };
        *first == UNDEFINED && rest.iter().zip(either.skip(1)).all(mixed)
    }
}

#[derive(Clone, Default)]
struct List {
    pieces: BTreeMap<u64, Piece>,
    /// How many numbers have been given, and how many to sites that store.
    given: u32,
    storing: u32,
    kept: bool,
}

/// The rewritten call sites of one process.
pub struct Sites {
    list: Mutex<List>,
    /// There are some.
    any: AtomicBool,
    /// Threads that run application code or orders, with the bits above.
    running: AtomicU32,
    /// Those of them that carry out orders first, with [`REWRITING`]: what is mapped may change under them.
    ordered: AtomicU32,
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
        let any = AtomicBool::new(!list.pieces.is_empty());
        let list = Mutex::new(LockClass::Platform, list);
        Sites { list, any, running: AtomicU32::new(0), ordered: AtomicU32::new(0) }
    }

    /// Whether any site has been rewritten.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// A thread goes on. Waits while text is being rewritten that must not run, some microseconds.
    pub fn enter(&self) {
        count_in(&self.running);
    }

    /// A thread has stopped or died.
    pub fn leave(&self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }

    /// A thread goes on that carries out orders first. Waits while text is being rewritten.
    pub fn enter_orders(&self) {
        count_in(&self.ordered);
    }

    /// Such a thread has stopped or died.
    pub fn leave_orders(&self) {
        self.ordered.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether no thread carries out orders, and so text can be written.
    pub fn is_quiet(&self) -> bool {
        self.ordered.load(Ordering::Relaxed) == 0
    }

    /// Lets no thread go on, if none runs and nobody writes text.
    pub fn begin_alone(&self) -> bool {
        close(&self.running)
    }

    /// Ends that.
    pub fn end_alone(&self) {
        self.running.fetch_and(!REWRITING, Ordering::AcqRel);
    }

    /// Lets no thread carry out orders, if none does and nobody writes text.
    pub fn begin_beside(&self) -> bool {
        // Those that run meanwhile see a mixture, and are told to try again. Orders would do so to what is mapped.
        let closed = close(&self.ordered);
        if closed {
            self.begin_writing();
        }
        closed
    }

    /// Ends that.
    pub fn end_beside(&self) {
        self.end_writing();
        self.ordered.fetch_and(!REWRITING, Ordering::AcqRel);
    }

    /// Waits until nobody else writes text.
    pub fn begin_writing(&self) {
        loop {
            let running = self.running.load(Ordering::Acquire);
            // Whoever writes needs no thread that waits here: it takes some microseconds.
            let free = running & (REWRITING | WRITING) == 0;
            let marked = running | WRITING;
            let exchange =
                || self.running.compare_exchange(running, marked, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if free && exchange() {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Lets others write text again.
    pub fn end_writing(&self) {
        self.running.fetch_and(!WRITING, Ordering::AcqRel);
    }

    /// A number for the site at an address, of its own, which has this word.
    ///
    /// # Errors
    /// ENOSPC if there are too many, or there are to be none.
    pub fn number(&self, at: u64, original: &[u8], word: u64) -> Result<u32> {
        let mut list = self.list.lock();
        if list.kept {
            return Err(Errno::ENOSPC);
        }
        // The same bytes in the same place have the same word.
        let known = list.pieces.get(&at).filter(|known| known.original() == original);
        if let Some(known) = known {
            return Ok(known.number);
        }
        let (given, first, end) = match word >> site::NUMBER_SHIFT {
            site::STORES => (&mut list.storing, site::FIRST_STORING, MAX_SITES),
            _ => (&mut list.given, 0, site::FIRST_STORING),
        };
        let number = first.saturating_add(*given);
        if number >= end {
            return Err(Errno::ENOSPC);
        }
        *given = given.saturating_add(1);
        Ok(number)
    }

    /// Lists what is about to be rewritten.
    pub fn insert(&self, piece: Piece) {
        self.list.lock().pieces.insert(piece.at, piece);
        self.any.store(true, Ordering::Release);
    }

    /// What begins at an address, by the list.
    pub fn at(&self, at: u64) -> Option<Piece> {
        self.list.lock().pieces.get(&at).copied()
    }

    /// No site is rewritten from here on.
    pub fn keep(&self) {
        self.list.lock().kept = true;
    }

    /// What reaches into a range.
    pub fn within(&self, start: u64, end: u64) -> Vec<Piece> {
        if !self.any() {
            return Vec::new();
        }
        // A longer piece may begin before the range and reach into it.
        let first = start.saturating_sub(site::LEN - 1);
        let list = self.list.lock();
        let pieces = list.pieces.range(first..end.max(first)).map(|(_, piece)| *piece);
        pieces.filter(|piece| piece.end() > start).collect()
    }
}

/// Counts a thread, once it may go on.
fn count_in(count: &AtomicU32) {
    // Counted first and asked then: whoever rewrites has seen 0 and set the bit in one step.
    while count.fetch_add(1, Ordering::AcqRel) & REWRITING != 0 {
        count.fetch_sub(1, Ordering::AcqRel);
        while count.load(Ordering::Acquire) & REWRITING != 0 {
            std::thread::yield_now();
        }
    }
}

/// Lets nobody be counted any more, if nobody is.
fn close(count: &AtomicU32) -> bool {
    count.compare_exchange(0, REWRITING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// The word that the stub finds for a short site: its two bytes are `syscall`.
pub fn word_of_short(behind: u64) -> Option<u64> {
    (behind >> site::NUMBER_SHIFT == 0).then_some(site::SHORT << site::NUMBER_SHIFT | behind)
}

/// The word that the stub finds for a site, if its bytes can be rewritten.
pub fn word_of(bytes: &Bytes, behind: u64) -> Option<u64> {
    if bytes[FIRST..] != SYSCALL || behind >> site::NUMBER_SHIFT != 0 {
        return None;
    }
    if bytes[..FIRST] == LOAD_R9 {
        return Some(site::GENERIC << site::NUMBER_SHIFT | behind);
    }
    if bytes[..FIRST] == STORE_R11 {
        return Some(site::STORES << site::NUMBER_SHIFT | behind);
    }
    let number = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    // Numbers from STORES on have a meaning of their own in the word.
    let fits = bytes[0] == MOV_EAX && u64::from(number) < site::STORES && !needs_frame(number.into());
    fits.then_some(u64::from(number) << site::NUMBER_SHIFT | behind)
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
        let stores = [0x4c, 0x89, 0x5c, 0x24, 0x08, 0x0f, 0x05];
        assert_eq!(word_of(&stores, behind), Some(0xfffd << 48 | behind));
        for other in [
            [0xb8, 110, 0, 0, 0, 0x0f, 0x34],
            [0xb9, 110, 0, 0, 0, 0x0f, 0x05],
            [0xb8, 110, 0, 1, 0, 0x0f, 0x05],
            [0xb8, 0xff, 0xff, 0, 0, 0x0f, 0x05],
            [0xb8, 0xfe, 0xff, 0, 0, 0x0f, 0x05],
            [0xb8, 0xfd, 0xff, 0, 0, 0x0f, 0x05],
            [0xb8, 56, 0, 0, 0, 0x0f, 0x05],
            [0xb8, 15, 0, 0, 0, 0x0f, 0x05],
            [0x4c, 0x8b, 0x4c, 0x24, 0x10, 0x0f, 0x05],
        ] {
            assert_eq!(word_of(&other, behind), None, "{other:x?}");
        }
    }

    #[test]
    fn a_short_site_leads_to_its_padding() {
        for padding in [0x1000 + 2 + 127, 0x1000 + 2 - 128, 0x1002, 0x1009] {
            let short = Piece::new(0x1000, 3, Change::Short(padding), [0x0f, 0x05, 1, 2, 3, 4, 5]);
            assert_eq!((short.len(), short.original()), (2, &SYSCALL[..]));
            let [jump, by, ..] = short.patch();
            assert_eq!((jump, short.end().wrapping_add_signed(by.cast_signed().into())), (0xeb, padding));
        }
    }

    #[test]
    fn what_is_half_written_is_told_from_what_is_not() {
        for change in [Change::Site, Change::Short(0x1010), Change::Padding(0x1010)] {
            let piece = Piece::new(0x1000, 1, change, [0x0f, 0x05, 3, 4, 5, 0x0f, 0x05]);
            let len = piece.len();
            let (original, patch) = (piece.original(), &piece.patch()[..len]);
            assert!(!piece.is_torn(original) && !piece.is_torn(patch) && !piece.is_torn(&[]));
            for written in 1..=len {
                let mut bytes = [&patch[..written], &original[written..]].concat();
                bytes[0] = UNDEFINED;
                assert!(piece.is_torn(&bytes), "{change:?} {written}");
                assert!(!piece.is_torn(&bytes[1..]));
                bytes[len - 1] ^= 0x80;
                assert!(!piece.is_torn(&bytes));
            }
        }
    }

    #[test]
    fn who_writes_beside_others_keeps_orders_out() {
        let sites = Sites::new(None);
        sites.enter();
        assert!(!sites.begin_alone() && sites.begin_beside());
        assert!(!sites.begin_beside(), "one at a time");
        sites.enter();
        sites.end_beside();
        sites.enter_orders();
        assert!(!sites.begin_beside(), "orders are being carried out");
        sites.begin_writing();
        sites.end_writing();
        sites.leave_orders();
        sites.leave();
        sites.leave();
        assert!(sites.begin_alone());
    }

    #[test]
    fn pieces_are_found_by_what_they_cover() {
        let sites = Sites::new(None);
        assert!(sites.within(0, u64::MAX).is_empty());
        let short = Piece::new(0x1000, 0, Change::Short(0x1010), [0; 7]);
        let padding = Piece::new(0x1010, 0, Change::Padding(0x1000), [0; 7]);
        sites.insert(short);
        sites.insert(padding);
        assert_eq!(sites.within(0x1001, 0x1002), [short]);
        assert_eq!(sites.within(0x1002, 0x1010), []);
        assert_eq!(sites.within(0x1016, 0x1017), [padding]);
        assert_eq!(sites.within(0, u64::MAX), [short, padding]);
        assert_eq!(sites.at(0x1010), Some(padding));
    }

    #[test]
    fn a_jump_to_the_old_call_is_undefined() {
        for number in [0, 1, 255, 256, MAX_SITES - 1] {
            let patch = Piece::new(0x1000, number, Change::Site, [0; 7]).patch();
            assert_eq!((patch[FIRST], patch[6]), (UNDEFINED, 0));
            let entry = u32::from_le_bytes([patch[3], patch[4], patch[5], patch[6]]);
            assert_eq!(u64::from(entry), JUMP_TABLE + u64::from(number) * 8);
        }
    }
}
