//! [`Severed`]: a stream to the outside whose other end is gone, since it is out of an image.
//!
//! Whoever ran `exec` held the other ends. A process that comes back without them finds what it would find if its client had died: the end
//! of a pipe or connection, a terminal that has hung up.

use std::sync::Arc;

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::state::{OpenFileKind, SeveredKind, SeveredState};
use moat_image::{ImageError, Refusal};
use moat_vfs::anon::Pseudo;
use moat_vfs::caller::Caller;
use moat_vfs::cred::Credentials;
use moat_vfs::file::File;
use moat_vfs::inode::{Inode, Metadata};
use moat_vfs::persist::SaveFiles;
use moat_vfs::{OpenFile, Vfs};

/// Bytes of the longest name that a file is shown by.
const MAX_NAME: usize = 4096;

/// /dev/null on the host.
const NULL: DeviceId = DeviceId::new(1, 3);

/// A stream to the outside whose other end is gone.
struct Severed {
    kind: SeveredKind,
    ino: u64,
}

impl Severed {
    fn state(&self, f: &OpenFile) -> SeveredState {
        SeveredState { kind: self.kind, shown: f.path().text(None), ino: self.ino }
    }
}

/// What becomes of the stream `f` in an image, that is a file of `file_type`.
///
/// # Errors
/// A file with contents: it could only be found again by a path of the host, which no image is believed about.
pub(crate) fn save(f: &OpenFile, meta: &Metadata) -> std::result::Result<OpenFileKind, Refusal> {
    let shown = f.path().text(None);
    let kind = match FileType::from_mode(meta.mode) {
        Some(FileType::Fifo) => SeveredKind::Pipe,
        Some(FileType::Socket) => SeveredKind::Socket,
        Some(FileType::CharDevice) if meta.rdev == NULL => SeveredKind::Null,
        _ => {
            let name = String::from_utf8_lossy(&shown);
            return Err(Refusal::new(format!("a file of the host that was given to exec ({name})")));
        }
    };
    Ok(OpenFileKind::Severed(SeveredState { kind, shown, ino: meta.ino }))
}

/// Opens a stream of an image, without its other end.
///
/// # Errors
/// A name that no file has.
pub fn restore(
    vfs: &Vfs,
    saved: &SeveredState,
    flags: OpenFlags,
    creds: &Arc<Credentials>,
) -> std::result::Result<Arc<OpenFile>, ImageError> {
    if saved.shown.len() > MAX_NAME || saved.shown.contains(&0) {
        return Err(ImageError::state("the name of a stream"));
    }
    let severed = Arc::new(Severed { kind: saved.kind, ino: saved.ino });
    let path = vfs.pseudo_path(Pseudo::Donated, severed.clone(), &saved.shown);
    Ok(OpenFile::new(severed, path, flags, creds.clone()))
}

impl Inode for Severed {
    fn metadata(&self) -> Result<Metadata> {
        let rdev = match self.kind {
            SeveredKind::Null => NULL,
            SeveredKind::Pipe | SeveredKind::Socket | SeveredKind::Terminal => DeviceId::default(),
        };
        let mode = self.file_type().mode_bits() | 0o600;
        Ok(Metadata {
            dev: Pseudo::Donated.dev(),
            ino: self.ino,
            mode,
            nlink: 1,
            blksize: 4096,
            rdev,
            ..Metadata::default()
        })
    }

    fn file_type(&self) -> FileType {
        match self.kind {
            SeveredKind::Pipe => FileType::Fifo,
            SeveredKind::Socket => FileType::Socket,
            SeveredKind::Terminal | SeveredKind::Null => FileType::CharDevice,
        }
    }
}

impl File for Severed {
    fn read(&self, _f: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Ok(0)
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        match self.kind {
            SeveredKind::Pipe | SeveredKind::Socket => Err(Errno::EPIPE),
            SeveredKind::Terminal => Err(Errno::EIO),
            SeveredKind::Null => Ok(buf.len()),
        }
    }

    fn poll(&self, f: &OpenFile) -> PollEvents {
        let both = PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM;
        match self.kind {
            SeveredKind::Pipe if f.flags().access_mode().can_write() => {
                PollEvents::OUT | PollEvents::WRNORM | PollEvents::ERR
            }
            SeveredKind::Pipe => PollEvents::HUP,
            SeveredKind::Socket => both | PollEvents::HUP | PollEvents::RDHUP,
            // `hung_up_tty_poll`.
            SeveredKind::Terminal => both | PollEvents::HUP | PollEvents::ERR,
            SeveredKind::Null => both,
        }
    }

    fn ioctl(&self, _f: &OpenFile, _caller: &dyn Caller, _cmd: u32, _arg: u64) -> Result<u64> {
        // `hung_up_tty_ioctl`.
        Err(if self.kind == SeveredKind::Terminal { Errno::EIO } else { Errno::ENOTTY })
    }

    fn save(&self, f: &OpenFile, _saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        Ok(OpenFileKind::Severed(self.state(f)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_is_gone() {
        let vfs = moat_vfs::vfs::fake::vfs(moat_vfs::Registry::default());
        let creds = Arc::new(Credentials::root(moat_vfs::cred::UserNamespace::root()));
        let open = |kind, flags| {
            let saved = SeveredState { kind, shown: b"pipe:[7]".to_vec(), ino: 7 };
            restore(&vfs, &saved, flags, &creds).unwrap()
        };
        let mut buf = [0; 4];
        let pipe = open(SeveredKind::Pipe, OpenFlags::WRONLY);
        assert_eq!((pipe.write(b"x"), pipe.poll().contains(PollEvents::ERR)), (Err(Errno::EPIPE), true));
        let pipe = open(SeveredKind::Pipe, OpenFlags::empty());
        assert_eq!((pipe.read(&mut buf), pipe.poll()), (Ok(0), PollEvents::HUP));
        let terminal = open(SeveredKind::Terminal, OpenFlags::RDWR);
        assert_eq!((terminal.read(&mut buf), terminal.write(b"x")), (Ok(0), Err(Errno::EIO)));
        assert_eq!(open(SeveredKind::Null, OpenFlags::RDWR).write(b"xy"), Ok(2));
        assert_eq!(pipe.metadata().map(|meta| meta.ino), Ok(7));
        let long = SeveredState { kind: SeveredKind::Null, shown: vec![b'a'; MAX_NAME + 1], ino: 7 };
        assert!(restore(&vfs, &long, OpenFlags::RDWR, &creds).is_err());
    }
}
