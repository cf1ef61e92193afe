//! Descriptors for another program, besides its stdio.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::fcntl_dupfd_cloexec;

use crate::spawn::Donation;

/// Gives a command descriptors: the first becomes 3, the next 4 and so on. They are closed here with the command.
///
/// # Errors
/// EMFILE.
pub fn give(command: &mut Command, fds: Vec<OwnedFd>) -> io::Result<()> {
    let above = RawFd::try_from(fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?.saturating_add(Donation::FIRST);
    // Above all targets, so that none is overwritten before it is copied.
    let fds: Vec<OwnedFd> = fds.iter().map(|fd| fcntl_dupfd_cloexec(fd, above)).collect::<Result<_, _>>()?;
    let place = move || {
        for (fd, target) in fds.iter().zip(Donation::FIRST..) {
            // SAFETY: takes numbers only; in the child, which has descriptors of its own.
            if unsafe { libc::dup2(fd.as_raw_fd(), target) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes one system call for each descriptor, and allocates nothing.
    unsafe { command.pre_exec(place) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn they_are_numbered_from_three_on() {
        let pipes: Vec<_> =
            (0..3).map(|_| rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()).collect();
        let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
        let mut command = Command::new("sh");
        give(command.args(["-c", "echo a >&3; echo b >&4; echo c >&5"]), writers).unwrap();
        assert!(command.status().unwrap().success());
        drop(command);
        let texts: Vec<String> =
            readers.into_iter().map(|fd| std::io::read_to_string(File::from(fd)).unwrap()).collect();
        assert_eq!(texts, ["a\n", "b\n", "c\n"]);
    }
}
