//! moat's shim for containerd: `containerd-shim-moat-v1`, the runtime `io.containerd.moat.v1`.
//!
//! containerd starts one for a container, or for a pod, and asks things of it over a socket: the [`service`] of tasks, in [`ttrpc`]. The
//! shim runs moat's commands ([`runtime`]), is the parent of the sandboxes that those leave behind ([`children`]), carries the bytes of
//! their stdio ([`stdio`]) and tells containerd of what happens ([`publisher`]). It ends when containerd has deleted all containers.

#![forbid(unsafe_code)]

mod arguments;
mod children;
mod delete;
mod info;
mod log;
mod messages;
mod metrics;
mod mounts;
mod publisher;
mod runtime;
mod service;
mod start;
mod stdio;
mod task;
mod ttrpc;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use arguments::Arguments;
use publisher::Publisher;
use rustix::fs::OFlags;
use service::{Service, Shared};
use ttrpc::server::{serve, spawn};

/// The name by which containerd finds the program.
pub const PROGRAM: &str = "containerd-shim-moat-v1";

/// The name by which clients ask for it.
pub const RUNTIME: &str = "io.containerd.moat.v1";

/// With which of them containerd's command lines for a shim begin, whatever its name is.
pub const FLAGS: [&str; 2] = ["-namespace", "-info"];

/// The program. `words` is argv after the name; gives the exit code.
pub fn main(words: impl Iterator<Item = OsString>) -> u8 {
    let run = || {
        let arguments = Arguments::parse(words).map_err(io::Error::other)?;
        match arguments.action.as_str() {
            _ if arguments.shows_version => info::print_version(),
            _ if arguments.shows_info => info::print(),
            "start" => start::run(&arguments),
            "delete" => delete::run(&arguments),
            "" => work(&arguments),
            other => Err(io::Error::other(format!("unknown command {other:?}"))),
        }
    };
    match run() {
        Ok(()) => 0,
        Err(error) => {
            // containerd shows its user what a shim says that fails.
            eprintln!("{PROGRAM}: {error}");
            1
        }
    }
}

/// Serves until containerd ends it.
fn work(arguments: &Arguments) -> io::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    // Whoever leads out of it: a FIFO that containerd reads. It may be gone.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    if let Ok(log) = File::options().write(true).custom_flags(nonblocking).open("log") {
        rustix::stdio::dup2_stderr(log)?;
    }
    let _ = rustix::thread::set_name(c"containerd-shim");
    // Sandboxes become its children when the commands that made them end.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let address = std::env::var_os("TTRPC_ADDRESS").filter(|address| !address.is_empty()).map(PathBuf::from);
    let publisher = Publisher::new(address, &arguments.namespace)?;
    let service = Arc::new(Service::new(&arguments.namespace, arguments.socket.clone(), publisher));
    let shared = Arc::new(Shared(Arc::clone(&service)));
    spawn("server", move || {
        if let Err(error) = serve(&listener, &shared) {
            log::error(format_args!("no more connections: {error}"));
        }
    })?;
    service.children.reap(|pid, exit| service.ended(pid, exit));
    Ok(())
}
