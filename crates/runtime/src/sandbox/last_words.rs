//! The panic log of a sandbox that has died: what is quoted of it, and where all of it stays.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::Sandbox;

/// Bytes of the panic log that an error quotes.
const TAIL_BYTES: u64 = 8 << 10;

/// Bytes that are kept: reports are shorter, whoever wrote them.
const KEPT_BYTES: u64 = 1 << 20;

/// How many names are tried for a file.
const ATTEMPTS: u32 = 100;

/// The end of a panic log, but for what was in it at `start` or before.
pub(crate) fn tail_of_log(panic_log: &mut File, start: u64) -> io::Result<String> {
    let length = panic_log.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(TAIL_BYTES).max(start);
    let text = read(panic_log, from, TAIL_BYTES)?;
    // Half a line says nothing.
    let whole = if from > start { text.split_once('\n').map(|(_, whole)| whole.to_owned()) } else { None };
    Ok(whole.unwrap_or(text))
}

/// What Rust says at the end of a report: all of it where that is not to be found.
pub(super) fn words_of(tail: &str) -> &str {
    tail.rfind("\npanicked at ").and_then(|at| tail.get(at..)).map_or(tail, str::trim_start)
}

/// Sees to it that what a panic log has from `start` on is in a file that stays, if it is a report of a panic; says where.
///
/// A log that somebody has named stays by itself. The sandbox's own goes with its container, and one without a container has but memory.
pub(super) fn keep(panic_log: &mut File, start: u64, sandbox: &Sandbox) -> io::Result<Option<PathBuf>> {
    let text = read(panic_log, start, KEPT_BYTES)?;
    // Other last words are short: they are quoted as a whole.
    if u64::try_from(text.len()).is_ok_and(|length| length <= TAIL_BYTES) && !text.contains(" failed\n") {
        return Ok(None);
    }
    let path = fs::read_link(format!("/proc/self/fd/{}", panic_log.as_raw_fd()))?;
    let is_own = !sandbox.directory.as_os_str().is_empty() && path.starts_with(&sandbox.directory);
    if path.is_absolute() && path.exists() && !is_own {
        return Ok(Some(path));
    }
    for attempt in 0..ATTEMPTS {
        let path = std::env::temp_dir().join(format!("moat-{}-{attempt}.panic.log", sandbox.id));
        // Never one that is there: others may put links there.
        match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                io::Write::write_all(&mut file, text.as_bytes())?;
                return Ok(Some(path));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn read(log: &mut File, from: u64, most: u64) -> io::Result<String> {
    log.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    (&*log).take(most).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
