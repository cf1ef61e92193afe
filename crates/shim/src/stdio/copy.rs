//! Carrying bytes from one descriptor to another.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};

/// Bytes that are carried at once.
const BYTES: usize = 16 << 10;

/// Copies until there is nothing more to come, until nobody takes it, or until `stop` is readable.
///
/// Descriptors that don't block are waited for; one that does holds up `stop`.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, stop: &OwnedFd) {
    let mut buffer = vec![0; BYTES];
    while ready(from, PollFlags::IN, stop) {
        let length = match read(from, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => continue,
            // EIO: the last one has closed the terminal.
            Err(_) | Ok(0) => return,
            Ok(length) => length,
        };
        if !write_all(to, buffer.get(..length).unwrap_or_default(), stop) {
            return;
        }
    }
}

/// Whether all was taken.
fn write_all(to: &OwnedFd, mut bytes: &[u8], stop: &OwnedFd) -> bool {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if ready(to, PollFlags::OUT, stop) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Waits; false once the copying is to end.
fn ready(fd: &OwnedFd, events: PollFlags, stop: &OwnedFd) -> bool {
    loop {
        let mut fds = [PollFd::new(fd, events), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => return fds[1].revents().is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::thread;

    #[test]
    fn all_is_copied_and_a_stop_ends_it() {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).unwrap();
        let ((from, source), (sink, to)) = (pipe(), pipe());
        rustix::io::ioctl_fionbio(&to, true).unwrap();
        let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        // More than the pipes hold, so that it waits for its reader.
        let sent: Vec<u8> = (0..300_000u32).map(|n| n.to_ne_bytes()[0]).collect();
        thread::scope(|scope| {
            scope.spawn(|| copy(&from, &to, &stop));
            let writer = scope.spawn(|| {
                let mut left = sent.as_slice();
                while !left.is_empty() {
                    left = &left[write(&source, left).unwrap()..];
                }
            });
            let (mut got, mut buffer) = (Vec::new(), [0u8; 999]);
            while got.len() < sent.len() {
                let n = read(&sink, &mut buffer).unwrap();
                got.extend_from_slice(&buffer[..n]);
            }
            assert!(got == sent);
            writer.join().unwrap();
            write(&stop, &1u64.to_ne_bytes()).unwrap();
        });
    }
}
