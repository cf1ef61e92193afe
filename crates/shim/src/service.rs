//! [`Service`]: containerd's task service.
//!
//! How processes come and go is in [`life`], with the commands for it in [`launch`]; [`change`] and [`ask`] have the other calls.
//!
//! # Invariants
//! - No command of the runtime runs, and nothing is waited for, under the lock of the state.
//! - Events are queued under it, so that their order is that of what they tell: that a process was started comes before that it has
//!   ended, which comes before that it was deleted.

mod ask;
mod change;
mod launch;
pub(crate) mod life;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::children::{Children, Exit};
use crate::messages::{Empty, TaskExit, WaitResponse};
use crate::publisher::Publisher;
use crate::task::{Process, Task};
use crate::ttrpc::server::{Handler, Reply};
use crate::ttrpc::{Code, Status, decode};

/// How long containerd is told of what is left to tell when the shim ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The service of one shim.
#[derive(Debug)]
pub(crate) struct Service {
    namespace: String,
    /// Its socket.
    socket: PathBuf,
    state: Mutex<State>,
    publisher: Publisher,
    pub(crate) children: Children,
}

#[derive(Debug, Default)]
struct State {
    tasks: HashMap<String, Task>,
    /// Ids of containers that are being created.
    reserved: HashSet<String>,
    /// How many commands are starting a process whose pid is not known yet.
    starting: usize,
    /// Ends of processes that are none of those known, while there are such commands.
    early: HashMap<i32, Exit>,
}

impl State {
    fn task(&mut self, id: &str) -> Result<&mut Task, Status> {
        self.tasks.get_mut(id).ok_or_else(|| Code::NotFound.because(format_args!("container not created: {id}")))
    }

    fn process(&mut self, id: &str, exec_id: &str) -> Result<&mut Process, Status> {
        self.task(id)?.process(exec_id)
    }
}

impl Service {
    pub(crate) fn new(namespace: &str, socket: PathBuf, publisher: Publisher) -> Self {
        Service {
            namespace: namespace.to_owned(),
            socket,
            state: Mutex::default(),
            publisher,
            children: Children::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the end of a process that a command of the runtime has left behind.
    pub(crate) fn ended(&self, pid: i32, exit: Exit) {
        let State { tasks, early, starting, .. } = &mut *self.state();
        let found = tasks.iter_mut().find_map(|(id, task)| Some((id.clone(), task.by_pid(pid)?)));
        match found {
            Some((id, (exec_id, process))) => {
                process.exit = Some(exit);
                self.tell_exit(&id, &exec_id, process);
            }
            None if *starting > 0 => {
                early.insert(pid, exit);
            }
            None => {}
        }
    }

    /// Tells of a process's end, if it has one, and it may be told.
    fn tell_exit(&self, id: &str, exec_id: &str, process: &mut Process) {
        let Some(exit) = process.told_exit() else { return };
        let event = TaskExit {
            container_id: id.to_owned(),
            id: if exec_id.is_empty() { id } else { exec_id }.to_owned(),
            pid: process.number(),
            exit_status: exit.status,
            exited_at: Some(exit.at.into()),
        };
        self.publisher.publish("/tasks/exit", &event);
        for waiter in process.waiters.drain(..) {
            waiter.send(Ok(wait_response(exit)));
        }
    }

    /// Ends the shim if it has no containers.
    fn shut_down(&self, reply: Reply) {
        let is_idle = {
            let state = self.state();
            state.tasks.is_empty() && state.reserved.is_empty()
        };
        if is_idle {
            // Before the answer: once it has come there is nothing of the shim's any more.
            self.publisher.flush(LAST_WORDS);
            let _ = std::fs::remove_file(&self.socket);
        }
        reply.send(Ok(Empty {}));
        if is_idle {
            std::process::exit(0);
        }
    }
}

fn wait_response(exit: Exit) -> WaitResponse {
    WaitResponse { exit_status: exit.status, exited_at: Some(exit.at.into()) }
}

/// The service behind an [`Arc`], which threads of its own hold.
#[derive(Debug)]
pub(crate) struct Shared(pub(crate) Arc<Service>);

impl Handler for Shared {
    fn call(&self, service: &str, method: &str, payload: &[u8], reply: Reply) {
        let Shared(tasks) = self;
        // Versions 2 and 3 have the same calls.
        if !matches!(service, "containerd.task.v2.Task" | "containerd.task.v3.Task") {
            return reply.send::<Empty>(Err(Code::Unimplemented.because(format_args!("service {service}"))));
        }
        match method {
            "Create" => reply.send(decode(payload).and_then(|request| tasks.create(request))),
            "Start" => reply.send(decode(payload).and_then(|request| tasks.start(&request))),
            "Delete" => reply.send(decode(payload).and_then(|request| tasks.delete(&request))),
            "Exec" => reply.send(decode(payload).and_then(|request| tasks.exec(request))),
            "Kill" => reply.send(decode(payload).and_then(|request| tasks.kill(&request))),
            "Pause" => reply.send(decode(payload).and_then(|request| tasks.pause(&request))),
            "Resume" => reply.send(decode(payload).and_then(|request| tasks.resume(&request))),
            "Update" => reply.send(decode(payload).and_then(|request| tasks.update(&request))),
            "Checkpoint" => reply.send(decode(payload).and_then(|request| tasks.checkpoint(&request))),
            "ResizePty" => reply.send(decode(payload).and_then(|request| tasks.resize(&request))),
            "CloseIO" => reply.send(decode(payload).and_then(|request| tasks.close_io(&request))),
            "State" => reply.send(decode(payload).and_then(|request| tasks.process_state(&request))),
            "Pids" => reply.send(decode(payload).and_then(|request| tasks.pids(&request))),
            "Stats" => reply.send(decode(payload).and_then(|request| tasks.stats(&request))),
            "Connect" => reply.send(decode(payload).map(|request| tasks.connect(&request))),
            "Wait" => match decode(payload) {
                Ok(request) => tasks.wait(&request, reply),
                Err(status) => reply.send::<Empty>(Err(status)),
            },
            "Shutdown" => tasks.shut_down(reply),
            _ => reply.send::<Empty>(Err(Code::Unimplemented.because(format_args!("method {method}")))),
        }
    }
}
