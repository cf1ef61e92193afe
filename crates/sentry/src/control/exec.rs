//! Processes that join a running container.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::Errno;
use moat_control::{ContainerStatus, ControlError, ExecLifetime, ExecuteArgs, Response};
use moat_jail::DonatedFiles;
use moat_kernel::spawn::prepare_process;

use super::request::exit_status;
use super::server::Session;
use crate::console;
use crate::process::{self, StartError};

/// Ended processes whose status nobody has asked for that a container keeps.
const MAX_KEPT: usize = 1024;

/// Starts a process in the namespaces of a container; its parent is outside, as that of a container's init.
pub(super) async fn execute(
    session: &Arc<Session>,
    args: ExecuteArgs,
    fds: Vec<OwnedFd>,
) -> Result<Response, ControlError> {
    let container = session.server.registry.get(&args.id)?;
    // Until it runs: one that has been made and does not would keep a save from its end.
    let _turn = container.turn.lock().await;
    // A process that is started before those of an image have come would take one of their numbers.
    if matches!(container.status(), ContainerStatus::Stopped | ContainerStatus::Paused) || container.init().is_none() {
        return Err(container.wrong_state("no process can be started in it"));
    }
    let mut files = DonatedFiles::new(0, fds);
    let numbers = args.stdio.iter().chain(&args.preserved);
    let fds = numbers.map(|fd| files.take(*fd)).collect::<Result<_, _>>();
    let fds = fds.map_err(|e| ControlError::Invalid(e.to_string()))?;
    let failed = |e: StartError| e.into_control(&args.process);
    let request = process::request(&args.process, &container.member, fds, |files, creds| {
        console::name(files, &container.member.fs.namespace, creds);
    })
    .map_err(failed)?;
    let prepared = prepare_process(request).await.map_err(|e| failed(StartError::Command(e)))?;
    let process = prepared.process();
    let pid = process.pid();
    // Before it runs: it may end, and be asked about, at once.
    {
        let mut executed = container.executed.lock();
        if executed.len() >= MAX_KEPT {
            executed.retain(|_, p| p.status().is_none());
        }
        executed.insert(pid, process.clone());
    }
    prepared.start();
    if args.lifetime == ExecLifetime::Connection {
        session.bind(&container, process.clone());
    }
    if container.status() == ContainerStatus::Stopped {
        // It slipped in while the others were being killed; ESRCH: it was killed as well.
        let _ = process.signal(moat_abi::signal::Signal::SIGKILL);
    }
    Ok(Response::Started(pid))
}

/// Waits for the end of such a process, and forgets it.
pub(super) async fn wait(
    session: &Arc<Session>,
    id: &str,
    pid: i32,
    follower: Option<OwnedFd>,
) -> Result<Response, ControlError> {
    let container = session.server.registry.get(id)?;
    let process = container.executed.lock().get(&pid).cloned();
    let process = process.ok_or_else(|| ControlError::errno(format!("waiting for process {pid}"), Errno::ESRCH))?;
    // Before the wait: the container may end at any moment of it.
    if let Some(pidfd) = follower {
        let added = container.followers.add(pidfd);
        added.map_err(|errno| ControlError::errno("following a process", errno))?;
    }
    // Without a connection there is nobody to answer.
    let Some(status) = session.while_open(process.wait()).await else { return Ok(Response::Done) };
    container.forget(&process);
    Ok(Response::Exited(exit_status(status)))
}
