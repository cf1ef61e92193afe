//! Calls that ask, and those about a process's stdio.

use std::sync::Arc;

use moat_runtime::cgroup::{OomEvent, OomWatch};
use rustix::event::{PollFd, PollFlags, poll};

use super::{Service, wait_response};
use crate::messages::{
    CloseIoRequest, ConnectResponse, Empty, PidsResponse, ProcessInfo, ProcessRequest, ResizePtyRequest, StateResponse,
    StatsResponse, TaskOom, WaitResponse,
};
use crate::metrics;
use crate::runtime::status;
use crate::stdio::Streams;
use crate::ttrpc::Status;
use crate::ttrpc::server::Reply;

impl Service {
    pub(super) fn process_state(&self, request: &ProcessRequest) -> Result<StateResponse, Status> {
        self.state().task(&request.id)?.state(&request.id, &request.exec_id)
    }

    /// Answers when a process has ended.
    pub(super) fn wait(&self, request: &ProcessRequest, reply: Reply) {
        let mut state = self.state();
        match state.process(&request.id, &request.exec_id) {
            Err(status) => reply.send::<WaitResponse>(Err(status)),
            Ok(process) => match process.told_exit() {
                Some(exit) => reply.send(Ok(wait_response(exit))),
                None => process.waiters.push(reply),
            },
        }
    }

    /// The host processes that run a container's.
    pub(super) fn pids(&self, request: &ProcessRequest) -> Result<PidsResponse, Status> {
        let (runtime, _) = self.place(&request.id)?;
        let listed = runtime.container(&request.id)?.processes().map_err(status)?;
        let pids = listed.iter().filter_map(|process| u32::try_from(process.host_pid?).ok());
        Ok(PidsResponse { processes: pids.map(|pid| ProcessInfo { pid }).collect() })
    }

    /// What a container uses.
    pub(super) fn stats(&self, request: &ProcessRequest) -> Result<StatsResponse, Status> {
        let (runtime, _) = self.place(&request.id)?;
        Ok(StatsResponse { stats: Some(metrics::of(&runtime.container(&request.id)?)?) })
    }

    /// Who the shim is, whether it has such a container or not.
    pub(super) fn connect(&self, request: &ProcessRequest) -> ConnectResponse {
        let task_pid = self.state().task(&request.id).map_or(0, |task| task.init.number());
        ConnectResponse { shim_pid: std::process::id(), task_pid, version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    pub(super) fn resize(&self, request: &ResizePtyRequest) -> Result<Empty, Status> {
        if let Some(streams) = self.streams(&request.id, &request.exec_id)? {
            streams.resize(request.height, request.width)?;
        }
        Ok(Empty {})
    }

    pub(super) fn close_io(&self, request: &CloseIoRequest) -> Result<Empty, Status> {
        let streams = self.streams(&request.id, &request.exec_id)?;
        if let Some(streams) = streams.filter(|_| request.stdin) {
            streams.close_stdin();
        }
        Ok(Empty {})
    }

    /// Tells of each time that memory runs out, until there is nobody left for whom it could.
    pub(super) fn tell_of_memory(&self, id: &str, mut watch: OomWatch) {
        loop {
            if poll(&mut [PollFd::from_borrowed_fd(watch.fd(), PollFlags::IN)], None).is_err() {
                continue;
            }
            match watch.read() {
                OomEvent::Oom => self.publisher.publish("/tasks/oom", &TaskOom { container_id: id.to_owned() }),
                OomEvent::Nothing => {}
                OomEvent::Gone => return,
            }
        }
    }

    fn streams(&self, id: &str, exec_id: &str) -> Result<Option<Arc<Streams>>, Status> {
        Ok(self.state().process(id, exec_id)?.streams.clone())
    }
}
