//! [`Place`]: where a stream of a process goes, as clients name it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::ttrpc::{Code, Status};

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    /// A FIFO that the client reads, or a device.
    Path(PathBuf),
    /// A file that is appended to.
    File(PathBuf),
    /// A program that takes both outputs.
    Program(Program),
}

/// A program with arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
}

impl Place {
    /// A path, or a URI.
    pub(super) fn parse(name: &str) -> Result<Place, Status> {
        if name.is_empty() {
            return Ok(Place::Nowhere);
        }
        let Some((scheme, rest)) = name.split_once("://") else { return Ok(Place::Path(name.into())) };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = PathBuf::from(decoded(path));
        match scheme {
            "fifo" => Ok(Place::Path(path)),
            "file" => Ok(Place::File(path)),
            "binary" => {
                // Each name is an argument, and so is its value.
                let pairs = query.split('&').filter(|pair| !pair.is_empty());
                let arguments = pairs.flat_map(|pair| pair.splitn(2, '=')).filter(|word| !word.is_empty());
                let arguments = arguments.map(|word| decoded(&word.replace('+', " "))).collect();
                Ok(Place::Program(Program { path, arguments }))
            }
            _ => Err(Code::InvalidArgument.because(format_args!("unknown STDIO scheme {scheme}"))),
        }
    }

    /// Opens it for writing; `None` if what is written is to be lost.
    ///
    /// # Errors
    /// Of open(2).
    pub(super) fn open(self) -> io::Result<Option<OwnedFd>> {
        let file = match self {
            Place::Nowhere | Place::Program(_) => return Ok(None),
            Place::File(path) => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                File::options().append(true).create(true).open(path)?
            }
            // A FIFO open for both is there whether somebody reads or not, and so is what was written.
            Place::Path(path) if is_fifo(&path)? => {
                File::options().read(true).write(true).custom_flags(nonblocking()).open(path)?
            }
            Place::Path(path) => File::options().append(true).open(path)?,
        };
        Ok(Some(file.into()))
    }
}

/// Opens what a process's stdin comes from, and, of a FIFO, the end that keeps it from ending.
///
/// # Errors
/// Of open(2).
pub(super) fn stdin(path: &Path) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    let reader = File::options().read(true).custom_flags(nonblocking()).open(path)?;
    let keeper = match is_fifo(path)? {
        true => Some(File::options().write(true).custom_flags(nonblocking()).open(path)?.into()),
        false => None,
    };
    Ok((reader.into(), keeper))
}

fn is_fifo(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.file_type().is_fifo())
}

fn nonblocking() -> i32 {
    i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0)
}

/// The text with each %XX replaced.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_places() {
        let parse = |name| Place::parse(name).unwrap();
        assert_eq!(parse(""), Place::Nowhere);
        assert_eq!(parse("/run/x"), Place::Path("/run/x".into()));
        assert_eq!(parse("fifo:///run/x"), Place::Path("/run/x".into()));
        assert_eq!(parse("file:///var/a%20b%zz"), Place::File("/var/a b%zz".into()));
        let arguments = ["id", "1", "word", "a b", "c d"].map(String::from).to_vec();
        let program = Program { path: "/bin/log".into(), arguments };
        assert_eq!(parse("binary:///bin/log?id=1&word&a+b=c%20d"), Place::Program(program));
        assert!(Place::parse("http://x").is_err());
    }

    #[test]
    fn a_fifo_does_not_end_while_it_is_kept() {
        let path = std::env::temp_dir().join(format!("moat-shim-fifo-{}", std::process::id()));
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let (reader, keeper) = stdin(&path).unwrap();
        let read = || rustix::io::read(&reader, &mut [0; 9]);
        assert_eq!(read(), Err(rustix::io::Errno::AGAIN));
        fs::write(&path, "hello").unwrap();
        assert_eq!((read(), read()), (Ok(5), Err(rustix::io::Errno::AGAIN)));
        drop(keeper);
        assert_eq!(read(), Ok(0));
        fs::remove_file(path).unwrap();
    }
}
