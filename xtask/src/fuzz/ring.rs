//! The last calls of each thread of `tests/hardening/fuzz.c`: the layout is that of `tests/hardening/fuzz/ring.h`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

const WORKERS: usize = 6;
const THREADS: usize = 3;
const CALLS: usize = 32;

/// Words of the head, of a thread's, and of a call: number, six arguments, result.
const HEAD: usize = 8;
const THREAD_HEAD: usize = 4;
const CALL: usize = 8;
const THREAD: usize = THREAD_HEAD + CALLS * CALL;

/// What stands in the place of a result until the call is back.
const UNDER_WAY: u64 = 1 << 63;

/// So many calls of a thread are shown.
const SHOWN: usize = 4;

/// The file's contents.
pub(super) struct Ring(Vec<u64>);

impl Ring {
    /// A new file, of zeros.
    pub(super) fn create(file: &Path) -> Result<()> {
        Ok(fs::write(file, vec![0; 8 * (HEAD + WORKERS * THREADS * THREAD)])?)
    }

    /// What is in the file at the moment.
    pub(super) fn read(file: &Path) -> Result<Ring> {
        let bytes = fs::read(file)?;
        Ok(Ring(bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())).collect()))
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }

    /// Whether all workers are gone.
    pub(super) fn is_over(&self) -> bool {
        self.word(0) == 1
    }

    /// How often a worker was started.
    pub(super) fn generations(&self) -> u64 {
        self.word(1)
    }

    /// How many calls were made.
    pub(super) fn calls(&self) -> u64 {
        threads().map(|at| self.word(at)).sum()
    }

    /// The last calls of each thread, with names from the table that the guest was given.
    pub(super) fn last_calls(&self, table: &str) -> String {
        let mut out = String::new();
        for (i, at) in threads().enumerate() {
            let (count, seed, pid) = (self.word(at), self.word(at + 1), self.word(at + 2));
            let _ = writeln!(out, "worker {} thread {} pid {pid} seed {seed:#x}:", i / THREADS, i % THREADS);
            let count = usize::try_from(count).unwrap_or_default();
            for call in count.saturating_sub(SHOWN)..count {
                let entry = at + THREAD_HEAD + call % CALLS * CALL;
                let _ = writeln!(out, "    {}", self.call(entry, table));
            }
        }
        out
    }

    fn call(&self, at: usize, table: &str) -> String {
        let number = self.word(at).to_string();
        let line = table.lines().find_map(|line| line.strip_prefix(&number)?.strip_prefix(' ')).unwrap_or("?");
        let mut words = line.split(' ');
        let name = words.next().unwrap_or("?");
        let arguments: Vec<String> = words.zip(at + 1..).map(|(_, at)| format!("{:#x}", self.word(at))).collect();
        let result = match self.word(at + 7) {
            UNDER_WAY => "under way".to_string(),
            result => result.cast_signed().to_string(),
        };
        format!("{name}({}) = {result}", arguments.join(", "))
    }
}

/// Where the threads begin, in words.
fn threads() -> impl Iterator<Item = usize> {
    (0..WORKERS * THREADS).map(|i| HEAD + i * THREAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_shown_by_their_names_and_the_last_one_last() {
        let mut ring = Ring(vec![0; HEAD + WORKERS * THREADS * THREAD]);
        let at = HEAD + THREAD; // worker 0, thread 1
        ring.0[at..at + 3].copy_from_slice(&[34, 0x10, 9]);
        let entry = |call: usize| at + THREAD_HEAD + call * CALL;
        ring.0[entry(0)..entry(1)].copy_from_slice(&[3, 7, 0, 0, 0, 0, 0, (-9_i64).cast_unsigned()]);
        ring.0[entry(1)..entry(2)].copy_from_slice(&[3, 8, 0, 0, 0, 0, 0, UNDER_WAY]);
        let text = ring.last_calls("3 close fd:Fd\n34 pause\n");
        assert!(text.contains("worker 0 thread 1 pid 9 seed 0x10:\n"), "{text}");
        assert!(text.contains("    close(0x7) = -9\n    close(0x8) = under way\n"), "{text}");
        assert_eq!(ring.calls(), 34);
    }
}
