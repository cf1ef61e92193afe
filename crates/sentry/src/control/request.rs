//! Which request does what.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::signal::Signal;
use moat_control::{ControlError, ExitStatus, Request, Response, SignalTarget};

use super::server::{Answer, Session};
use super::{exec, inspect, life, logging, metrics, signal, stacks, trace};
use crate::{checkpoint, network, profile};

/// Whether a request may take long: it is then handled by a task of its own.
pub(super) fn waits(request: &Request) -> bool {
    match request {
        Request::Wait(_)
        | Request::WaitProcess { .. }
        | Request::ReserveContainer(_)
        | Request::CreateContainer(_)
        | Request::Execute(_)
        | Request::Pause(_)
        | Request::StopProfile(_)
        | Request::Checkpoint { .. }
        | Request::Metrics(_)
        | Request::DestroyContainer(_) => true,
        // Only that one waits until all have ended.
        Request::Signal { signal, target, .. } => *target == SignalTarget::All && *signal == Signal::SIGKILL.number(),
        _ => false,
    }
}

/// Does what is asked.
pub(super) async fn handle(session: &Arc<Session>, request: Request, fds: Vec<OwnedFd>) -> Answer {
    try_handle(session, request, fds).await.unwrap_or_else(|error| Response::Error(error).into())
}

async fn try_handle(session: &Arc<Session>, request: Request, fds: Vec<OwnedFd>) -> Result<Answer, ControlError> {
    let registry = &session.server.registry;
    let response = match request {
        Request::SetUpNetwork { config, resolver, nameservers } => {
            let kernel = registry.root().member.processes.kernel();
            let resolver = resolver.map(|asked_at| (asked_at, nameservers));
            network::set_up(kernel, *config, fds, resolver).map(|()| Response::Done)
        }
        Request::AddLink { config, resolver, nameservers } => {
            let kernel = registry.root().member.processes.kernel();
            let resolver = resolver.map(|asked_at| (asked_at, nameservers));
            network::add(kernel, &config, fds, resolver).map(Response::LinkAdded)
        }
        Request::RemoveLink(index) => {
            network::remove(registry.root().member.processes.kernel(), index).map(|()| Response::Done)
        }
        Request::ChangeRoutes { added, removed } => {
            let kernel = registry.root().member.processes.kernel();
            network::change_routes(kernel, added, &removed).map(|()| Response::Done)
        }
        Request::StartRoot => registry.root().start().map(|()| Response::Done),
        Request::StartContainer(id) => registry.get(&id)?.start().map(|()| Response::Done),
        Request::Wait(id) => {
            let container = registry.get(&id)?;
            // Its end is not told before those of what was executed in it have been noticed: clients rely on that order.
            let end = async {
                let status = container.ended().await;
                container.followers.have_ended().await;
                status
            };
            let status = session.while_open(end).await;
            // Without a connection there is nobody to answer.
            Ok(status.map_or(Response::Done, |s| Response::Exited(exit_status(s))))
        }
        Request::ReserveContainer(id) => {
            let reserved = life::reserve(registry, &id).await?;
            let template = reserved.template()?;
            // Given up with the connection, if nothing becomes of it.
            session.keep(reserved);
            return Ok(Answer::with(Response::Template, template));
        }
        Request::CreateContainer(spec) => {
            life::create(registry, session.take_reserved(), *spec, fds).await.map(|()| Response::Done)
        }
        Request::DestroyContainer(id) => life::destroy(registry, &id).await.map(|()| Response::Done),
        Request::Execute(args) => exec::execute(session, *args, fds).await,
        Request::WaitProcess { id, pid } => exec::wait(session, &id, pid, fds.into_iter().next()).await,
        Request::Signal { id, signal, target } => {
            let container = registry.get(&id)?;
            signal::send(&container, signal, target)?;
            if target == SignalTarget::All && signal == Signal::SIGKILL.number() {
                session.while_open(life::kill_all(&container)).await;
            }
            Ok(Response::Done)
        }
        Request::Processes(id) => Ok(Response::Processes(inspect::processes(&*registry.get(&id)?))),
        Request::Event(id) => Ok(Response::Event(inspect::event(&*registry.get(&id)?))),
        Request::Metrics(id) => {
            let container = registry.get(&id)?;
            Ok(Response::Metrics(Box::new(metrics::read(&container, registry))))
        }
        Request::Update { id, shares } => {
            registry.get(&id)?.update(&shares);
            Ok(Response::Done)
        }
        Request::Pause(id) => life::pause(&*registry.get(&id)?).await.map(|()| Response::Done),
        Request::Resume(id) => life::resume(&*registry.get(&id)?).await.map(|()| Response::Done),
        Request::ChangeLogging(spec) => {
            logging::change(registry.root().member.processes.kernel(), &spec, fds).map(|()| Response::Done)
        }
        Request::Strace { id, pid, calls } => {
            logging::change_strace(&*registry.get(&id)?, pid, &calls, fds).map(|()| Response::Done)
        }
        Request::CreateTraceSession { config, conflict } => {
            let kernel = registry.root().member.processes.kernel();
            trace::create(kernel, &config, conflict, fds).map(|()| Response::Done)
        }
        Request::DeleteTraceSession(name) => {
            trace::delete(registry.root().member.processes.kernel(), &name).map(|()| Response::Done)
        }
        Request::ListTraceSessions => {
            Ok(Response::TraceSessions(registry.root().member.processes.kernel().monitor.list()))
        }
        Request::State(id) => Ok(Response::State(registry.get(&id)?.status())),
        Request::Stacks => Ok(Response::Text(stacks::text(registry))),
        #[cfg(feature = "host-calls")]
        Request::HostCalls(calls) => Ok(Response::Text(format!("{:?}", super::host_calls::run(calls)))),
        Request::Checkpoint { id, then, compression } => {
            let container = registry.get(&id)?;
            checkpoint::save(registry, &container, then, compression, fds).await.map(|()| Response::Done)
        }
        Request::StartProfile(kind) => {
            profile::start(&session.server.recorders, registry, kind, fds).map(|()| Response::Done)
        }
        Request::StopProfile(kind) => {
            session.while_open(session.server.recorders.stop(kind)).await;
            Ok(Response::Done)
        }
    };
    response.map(Answer::from)
}

/// How a process ended, as the protocol says it.
pub(crate) fn exit_status(status: WaitStatus) -> ExitStatus {
    match status {
        WaitStatus::Exited(code) => ExitStatus::Exited(code),
        WaitStatus::Signaled { signal, core } => ExitStatus::Signaled { signal, core_dumped: core == CoreDump::Dumped },
        // Only the two above end a process.
        WaitStatus::Stopped(_) | WaitStatus::Continued => ExitStatus::Exited(0),
    }
}
