//! [`Task`] and [`Process`]: what the shim knows of a container and of the processes that were started in it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use moat_runtime::process_id::ProcessId;

use crate::children::Exit;
use crate::messages::{self, StateResponse};
use crate::runtime::Runtime;
use crate::stdio::{Named, Streams};
use crate::ttrpc::server::Reply;
use crate::ttrpc::{Code, Status};

/// A container.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) bundle: PathBuf,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) init: Process,
    /// By their exec ids.
    pub(crate) execs: HashMap<String, Process>,
    /// The image that it starts from.
    pub(crate) image: Option<PathBuf>,
    pub(crate) is_paused: bool,
}

/// How far a process has come. That it has ended is in [`Process::exit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is known, and has not been started.
    Added,
    /// A command that starts it runs.
    Starting,
    /// It was started.
    Started,
}

/// A process: a container's first, or one of `Exec`.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) stage: Stage,
    /// The host process that stands for it: its pid, or 0 as long as there is none.
    pub(crate) pid: i32,
    /// The same, for signals; `None` if it has ended before it could be looked at.
    pub(crate) host: Option<ProcessId>,
    pub(crate) exit: Option<Exit>,
    /// Nobody is told of its end before this: first comes that it was started.
    pub(crate) may_tell: bool,
    pub(crate) named: Named,
    pub(crate) streams: Option<Arc<Streams>>,
    /// Calls of `Wait`.
    pub(crate) waiters: Vec<Reply>,
    /// process.json of one of `Exec`.
    pub(crate) description: Vec<u8>,
}

impl Process {
    pub(crate) fn new(named: Named) -> Self {
        Process {
            stage: Stage::Added,
            pid: 0,
            host: None,
            exit: None,
            may_tell: false,
            named,
            streams: None,
            waiters: Vec::new(),
            description: Vec::new(),
        }
    }

    /// Its pid, for clients.
    pub(crate) fn number(&self) -> u32 {
        u32::try_from(self.pid).unwrap_or(0)
    }

    /// Notes the host process that stands for it.
    pub(crate) fn set_pid(&mut self, pid: i32) {
        self.pid = pid;
        self.host = ProcessId::of(pid).ok();
    }

    /// Its end, once that may be told.
    pub(crate) fn told_exit(&self) -> Option<Exit> {
        self.exit.filter(|_| self.may_tell)
    }

    /// Whether it may be deleted.
    ///
    /// # Errors
    /// It runs.
    pub(crate) fn check_ended(&self) -> Result<(), Status> {
        match (self.exit, self.stage) {
            (Some(_), _) | (None, Stage::Added) => Ok(()),
            _ => Err(Code::FailedPrecondition.because("cannot delete a running process")),
        }
    }
}

impl Task {
    /// The process with this exec id, or its first one.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn process(&mut self, exec_id: &str) -> Result<&mut Process, Status> {
        if exec_id.is_empty() {
            return Ok(&mut self.init);
        }
        let found = self.execs.get_mut(exec_id);
        found.ok_or_else(|| Code::NotFound.because(format_args!("process does not exist {exec_id}")))
    }

    /// What clients are told of a process.
    pub(crate) fn state(&mut self, id: &str, exec_id: &str) -> Result<StateResponse, Status> {
        let (bundle, is_paused) = (self.bundle.display().to_string(), self.is_paused);
        let process = self.process(exec_id)?;
        let status = match (process.exit, process.stage) {
            (Some(_), _) => messages::Status::Stopped,
            (None, Stage::Added | Stage::Starting) => messages::Status::Created,
            (None, Stage::Started) if is_paused => messages::Status::Paused,
            (None, Stage::Started) => messages::Status::Running,
        };
        Ok(StateResponse {
            id: id.to_owned(),
            bundle,
            pid: process.number(),
            status: status.into(),
            stdin: process.named.stdin.clone(),
            stdout: process.named.stdout.clone(),
            stderr: process.named.stderr.clone(),
            terminal: process.named.terminal,
            exit_status: process.exit.map_or(0, |exit| exit.status),
            exited_at: process.exit.map(|exit| exit.at.into()),
            exec_id: exec_id.to_owned(),
        })
    }

    /// Its process that a host process stands for, with its exec id.
    pub(crate) fn by_pid(&mut self, pid: i32) -> Option<(String, &mut Process)> {
        if self.init.pid == pid {
            return Some((String::new(), &mut self.init));
        }
        self.execs.iter_mut().find(|(_, process)| process.pid == pid).map(|(id, process)| (id.clone(), process))
    }
}
