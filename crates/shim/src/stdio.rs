//! A process's stdio: pipes or a terminal, and threads that carry bytes between them and what the client named.
//!
//! Clients name FIFOs, files (`file://`) or a program that takes logs (`binary://`), and nothing for what they don't want. The
//! process never has those themselves, but pipes of its own: so the end of a reader is not the end of the process, as
//! with runc's shim.

mod console;
mod copy;
mod logger;
mod place;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moat_abi::tty::Winsize;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::children::Children;
use crate::ttrpc::server::spawn;
use crate::ttrpc::{Code, Status};
use logger::Logger;
use place::Place;

pub(crate) use console::ConsoleSocket;

/// How long what a process has said is waited for when it has ended: one that it left behind may hold the pipe.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a client named for a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Whose stdio it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) id: &'a str,
    /// Who owns the pipes.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The descriptors of a command that starts a process.
pub(crate) struct Given {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

/// The shim's side of a process's stdio.
#[derive(Debug)]
pub(crate) struct Streams {
    /// The writing end of the client's FIFO for stdin: while it is open, that has no end when a client goes.
    stdin: Mutex<Option<OwnedFd>>,
    /// The terminal's master.
    console: Mutex<Option<Arc<OwnedFd>>>,
    copies: Mutex<usize>,
    copied: Condvar,
    /// Readable once the copying is to end.
    stop: OwnedFd,
    logger: Option<Logger>,
}

/// Copies that are to be made once the process is there.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// From where, to where, and what is closed with the first.
    copies: Vec<(Arc<OwnedFd>, Arc<OwnedFd>, Direction)>,
    /// With a terminal, whose master comes later.
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// To the process: nobody waits for it when that has ended.
    In,
    Out,
}

fn failed(what: &str, error: impl Into<std::io::Error>) -> Status {
    Code::Unknown.because(format_args!("{what}: {}", error.into()))
}

impl Streams {
    /// Opens what a client named.
    pub(crate) fn open(
        named: &Named,
        owner: Owner<'_>,
        children: &Children,
    ) -> Result<(Streams, Pending, Given), Status> {
        let mut pending = Pending::default();
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| failed("making an eventfd", error))?;
        let (reader, keeper) = match named.stdin.as_str() {
            "" => (None, None),
            path => {
                let (reader, keeper) = place::stdin(Path::new(path)).map_err(|error| failed(path, error))?;
                (Some(reader), keeper)
            }
        };
        let mut streams = Streams {
            stdin: Mutex::new(keeper),
            console: Mutex::new(None),
            copies: Mutex::new(0),
            copied: Condvar::new(),
            stop,
            logger: None,
        };
        let mut given = Given { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() };
        let [stdout, stderr] = streams.outputs(named, owner, children)?;
        if named.terminal {
            // One stream carries both.
            (pending.stdin, pending.stdout) = (reader, stdout.map(Output::into_fd));
            return Ok((streams, pending, given));
        }
        if let Some(reader) = reader {
            let (theirs, ours) = pipe(owner, End::Reading)?;
            // The process need not read what it is sent.
            rustix::io::ioctl_fionbio(&ours, true).map_err(|error| failed("a pipe", error))?;
            pending.copies.push((Arc::new(reader), Arc::new(ours), Direction::In));
            given.stdin = theirs.into();
        }
        for (output, given) in [(stdout, &mut given.stdout), (stderr, &mut given.stderr)] {
            match output {
                None => {}
                Some(Output::Direct(fd)) => *given = fd.into(),
                Some(Output::Copied(sink)) => {
                    let (ours, theirs) = pipe(owner, End::Writing)?;
                    pending.copies.push((Arc::new(ours), Arc::new(sink), Direction::Out));
                    *given = theirs.into();
                }
            }
        }
        Ok((streams, pending, given))
    }

    /// Where stdout and stderr go.
    fn outputs(&mut self, named: &Named, owner: Owner<'_>, children: &Children) -> Result<[Option<Output>; 2], Status> {
        let place = Place::parse(&named.stdout)?;
        if let Place::Program(program) = place {
            let (logger, outputs) = Logger::start(&program, owner, children)?;
            self.logger = Some(logger);
            return Ok(outputs.map(|fd| Some(Output::Direct(fd))));
        }
        let open = |place: Place, name: &str| place.open().map_err(|error| failed(name, error));
        let stdout = open(place, &named.stdout)?;
        let stderr = if named.terminal { None } else { open(Place::parse(&named.stderr)?, &named.stderr)? };
        Ok([stdout, stderr].map(|sink| sink.map(Output::Copied)))
    }

    /// Begins to copy; with a terminal `master` is its.
    pub(crate) fn begin(self: &Arc<Self>, mut pending: Pending, master: Option<OwnedFd>) -> Result<(), Status> {
        if let Some(master) = master {
            // The guest need not read what is typed.
            rustix::io::ioctl_fionbio(&master, true).map_err(|error| failed("a terminal", error))?;
            let master = Arc::new(master);
            if let Some(stdin) = pending.stdin {
                pending.copies.push((Arc::new(stdin), Arc::clone(&master), Direction::In));
            }
            // Read even if nobody wants it: the terminal would be full at some time.
            let sink = pending.stdout.map_or_else(null, Ok)?;
            pending.copies.push((Arc::clone(&master), Arc::new(sink), Direction::Out));
            *self.console.lock().unwrap_or_else(PoisonError::into_inner) = Some(master);
        }
        for (from, to, direction) in pending.copies {
            self.start_copy(from, to, direction)?;
        }
        Ok(())
    }

    fn start_copy(self: &Arc<Self>, from: Arc<OwnedFd>, to: Arc<OwnedFd>, direction: Direction) -> Result<(), Status> {
        let streams = Arc::clone(self);
        if direction == Direction::Out {
            let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
            *copies = copies.saturating_add(1);
        }
        let work = move || {
            copy::copy(&from, &to, &streams.stop);
            // Closed before anybody is told that all is copied.
            drop((from, to));
            if direction == Direction::Out {
                let mut copies = streams.copies.lock().unwrap_or_else(PoisonError::into_inner);
                *copies = copies.saturating_sub(1);
                streams.copied.notify_all();
            }
        };
        spawn("copy", work).map_err(|error| failed("starting a thread", error))
    }

    /// Lets the client's FIFO for stdin end when the client closes it.
    pub(crate) fn close_stdin(&self) {
        *self.stdin.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Gives the terminal another size; what has none keeps that.
    pub(crate) fn resize(&self, rows: u32, columns: u32) -> Result<(), Status> {
        let console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(master) = console.as_ref() else { return Ok(()) };
        let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = Winsize { ws_row: small(rows), ws_col: small(columns), ..Winsize::default() };
        moat_host::tty::set_winsize(master.as_fd(), size)
            .map_err(|errno| failed("a terminal's size", std::io::Error::from_raw_os_error(errno.raw())))
    }

    /// Ends the copying, when all that the process has said is copied, or some time has passed.
    pub(crate) fn finish(&self, children: &Children) {
        let deadline = Instant::now().checked_add(PATIENCE);
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        while *copies > 0 {
            let left = deadline.map_or(PATIENCE, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            copies = self.copied.wait_timeout(copies, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(copies);
        self.stop();
        if let Some(logger) = &self.logger {
            logger.finish(children, PATIENCE);
        }
    }

    /// Ends the copying at once.
    pub(crate) fn stop(&self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        self.close_stdin();
        *self.console.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Where an output goes.
enum Output {
    /// To a descriptor that the process may have itself.
    Direct(OwnedFd),
    Copied(OwnedFd),
}

impl Output {
    fn into_fd(self) -> OwnedFd {
        match self {
            Output::Direct(fd) | Output::Copied(fd) => fd,
        }
    }
}

/// The end of a pipe that the process has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Reading,
    Writing,
}

/// A pipe, of which the process's end belongs to the owner: the reading end and the writing end.
fn pipe(owner: Owner<'_>, theirs: End) -> Result<(OwnedFd, OwnedFd), Status> {
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("making a pipe", error))?;
    if (owner.uid, owner.gid) != (0, 0) {
        let end = if theirs == End::Reading { &reading } else { &writing };
        fchown(end, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(|error| failed("a pipe's owner", error))?;
    }
    Ok((reading, writing))
}

fn null() -> Result<OwnedFd, Status> {
    File::options().write(true).open("/dev/null").map(OwnedFd::from).map_err(|error| failed("/dev/null", error))
}
