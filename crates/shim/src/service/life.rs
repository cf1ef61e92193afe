//! How a container and its processes come and go.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::launch::{Launch, Launched, Starting, words};
use super::{Service, State, wait_response};
use crate::children::Exit;
use crate::log;
use crate::messages::{
    CreateTaskRequest, DeleteResponse, Empty, ExecProcessRequest, PidResponse, ProcessRequest, TaskCreate, TaskDelete,
    TaskExecAdded, TaskExecStarted, TaskIo, TaskStart,
};
use crate::mounts;
use crate::runtime::Runtime;
use crate::stdio::Named;
use crate::task::{Process, Stage, Task};
use crate::ttrpc::{Code, Status};

/// What the files of a container's first process are called in its bundle.
pub(crate) const INIT: &str = "init";

impl Service {
    /// Makes a container, whose program waits for [`Self::start`].
    pub(super) fn create(self: &Arc<Self>, request: CreateTaskRequest) -> Result<PidResponse, Status> {
        let id = request.id.clone();
        {
            let mut state = self.state();
            if state.tasks.contains_key(&id) || !state.reserved.insert(id.clone()) {
                return Err(Code::AlreadyExists.because(format_args!("container {id} exists already")));
            }
        }
        let root = Path::new(&request.bundle).join("rootfs");
        let created = self.create_reserved(request).inspect_err(|_| {
            if let Err(error) = mounts::unmount_all(&root) {
                log::warning(format_args!("unmounting {}: {error}", root.display()));
            }
        });
        self.state().reserved.remove(&id);
        created
    }

    fn create_reserved(self: &Arc<Self>, request: CreateTaskRequest) -> Result<PidResponse, Status> {
        let runtime = Arc::new(Runtime::new(&self.namespace, request.options.as_ref())?);
        let bundle = PathBuf::from(&request.bundle);
        // Before anything is made.
        runtime.note(&bundle).map_err(|error| Code::Unknown.because(error))?;
        mounts::mount_all(&request.rootfs, &bundle.join("rootfs")).map_err(|error| Code::Unknown.because(error))?;
        let CreateTaskRequest { id, rootfs, terminal, stdin, stdout, stderr, checkpoint, .. } = request;
        let named = Named { terminal, stdin, stdout, stderr };
        let mut init = Process::new(named.clone());
        let starting = Starting::new(self);
        let image = Some(checkpoint.clone()).filter(|path| !path.is_empty()).map(PathBuf::from);
        if image.is_none() {
            let arguments = words(["create", "--bundle"], &bundle);
            let (runtime, bundle, id, named) = (&runtime, &bundle, &id, &named);
            let what = "OCI runtime create failed";
            let launched = self.launch(Launch { runtime, bundle, id, arguments, named, name: INIT, what })?;
            note(&mut init, launched);
            self.watch_memory(id, runtime);
        }
        let pid = init.number();
        let Named { terminal, stdin, stdout, stderr } = named;
        let event = TaskCreate {
            container_id: id.clone(),
            bundle: request.bundle,
            rootfs,
            io: Some(TaskIo { stdin, stdout, stderr, terminal }),
            checkpoint,
            pid,
        };
        {
            let State { tasks, early, .. } = &mut *self.state();
            self.publisher.publish("/tasks/create", &event);
            self.settle(early, &id, "", &mut init);
            let task = Task { bundle, runtime, init, execs: HashMap::new(), image, is_paused: false };
            tasks.insert(id, task);
        }
        drop(starting);
        Ok(PidResponse { pid })
    }

    /// From here on the end of a process may be told; it may have come already.
    fn settle(&self, early: &mut HashMap<i32, Exit>, id: &str, exec_id: &str, process: &mut Process) {
        process.may_tell = true;
        process.exit = process.exit.or_else(|| early.remove(&process.pid));
        self.tell_exit(id, exec_id, process);
    }

    /// Notes a process that is to be started in a container.
    pub(super) fn exec(&self, request: ExecProcessRequest) -> Result<Empty, Status> {
        let ExecProcessRequest { id, exec_id, terminal, stdin, stdout, stderr, spec } = request;
        let description = spec.ok_or_else(|| Code::InvalidArgument.because("no process to execute"))?.value;
        // It becomes a part of file names.
        if exec_id.is_empty() || exec_id.contains('/') {
            return Err(Code::InvalidArgument.because(format_args!("{exec_id:?} is no id of a process")));
        }
        let mut state = self.state();
        let task = state.task(&id)?;
        if task.execs.contains_key(&exec_id) {
            return Err(Code::AlreadyExists.because(format_args!("id {exec_id}")));
        }
        let process = Process { description, ..Process::new(Named { terminal, stdin, stdout, stderr }) };
        task.execs.insert(exec_id.clone(), process);
        self.publisher.publish("/tasks/exec-added", &TaskExecAdded { container_id: id, exec_id });
        Ok(Empty {})
    }

    /// Lets a container's program run, or starts another process in it.
    pub(super) fn start(self: &Arc<Self>, request: &ProcessRequest) -> Result<PidResponse, Status> {
        let ProcessRequest { id, exec_id } = request;
        let _starting = Starting::new(self);
        let (runtime, bundle, image, named, description) = {
            let mut state = self.state();
            let task = state.task(id)?;
            let (runtime, bundle, image) = (Arc::clone(&task.runtime), task.bundle.clone(), task.image.clone());
            let process = task.process(exec_id)?;
            if process.stage != Stage::Added || process.exit.is_some() {
                return Err(Code::FailedPrecondition.because("cannot start a process that was started before"));
            }
            process.stage = Stage::Starting;
            process.may_tell = false;
            (runtime, bundle, image, process.named.clone(), process.description.clone())
        };
        let begun = match (exec_id.as_str(), image) {
            ("", None) => {
                let log = bundle.join("start-log.json");
                let run = runtime.run(&self.children, &log, "OCI runtime start failed", |command| {
                    command.arg("start").arg(id);
                });
                run.map(|()| None)
            }
            ("", Some(image)) => {
                let mut arguments = words(["restore", "--detach", "--image-path"], &image);
                arguments.extend(words(["--bundle"], &bundle));
                let (runtime, bundle, named) = (&runtime, &bundle, &named);
                let what = "OCI runtime restore failed";
                let launched = self.launch(Launch { runtime, bundle, id, arguments, named, name: INIT, what });
                launched.inspect(|_| self.watch_memory(id, runtime)).map(Some)
            }
            (exec_id, _) => self.launch_exec(&runtime, &bundle, id, exec_id, &named, &description).map(Some),
        };
        let State { tasks, early, .. } = &mut *self.state();
        // It may have been taken away meanwhile.
        let gone = || Code::NotFound.because(format_args!("{id} was deleted meanwhile"));
        let process = tasks.get_mut(id).ok_or_else(gone)?.process(exec_id)?;
        match begun {
            Ok(launched) => {
                if let Some(launched) = launched {
                    note(process, launched);
                }
                process.stage = Stage::Started;
                self.tell_start(id, exec_id, process.number());
                self.settle(early, id, exec_id, process);
                Ok(PidResponse { pid: process.number() })
            }
            // The runtime ends what it could not start; of that there is news.
            Err(status) if process.pid != 0 => {
                self.settle(early, id, exec_id, process);
                Err(status)
            }
            Err(status) => {
                // There was nothing whose end could be told of; it is known to those who wait.
                process.may_tell = true;
                let exit = *process.exit.insert(Exit::killed());
                release(process, exit);
                Err(status)
            }
        }
    }

    fn tell_start(&self, id: &str, exec_id: &str, pid: u32) {
        let container_id = id.to_owned();
        match exec_id {
            "" => self.publisher.publish("/tasks/start", &TaskStart { container_id, pid }),
            _ => {
                let event = TaskExecStarted { container_id, exec_id: exec_id.to_owned(), pid };
                self.publisher.publish("/tasks/exec-started", &event);
            }
        }
    }

    fn launch_exec(
        &self,
        runtime: &Runtime,
        bundle: &Path,
        id: &str,
        exec_id: &str,
        named: &Named,
        description: &[u8],
    ) -> Result<Launched, Status> {
        let name = format!("exec-{exec_id}");
        let file = bundle.join(format!("{name}.json"));
        fs::write(&file, description).map_err(|error| Code::Unknown.because(error))?;
        let arguments = words(["exec", "--detach", "--process"], &file);
        let what = "OCI runtime exec failed";
        let launched = self.launch(Launch { runtime, bundle, id, arguments, named, name: &name, what });
        for file in [file, bundle.join(format!("{name}.pid"))] {
            let _ = fs::remove_file(file);
        }
        launched
    }

    /// Removes a process that has ended, or a container with its first process.
    pub(super) fn delete(&self, request: &ProcessRequest) -> Result<DeleteResponse, Status> {
        let ProcessRequest { id, exec_id } = request;
        let (runtime, bundle, streams) = {
            let mut state = self.state();
            let task = state.task(id)?;
            let (runtime, bundle) = (Arc::clone(&task.runtime), task.bundle.clone());
            let process = task.process(exec_id)?;
            process.check_ended()?;
            (runtime, bundle, process.streams.clone())
        };
        if exec_id.is_empty() {
            let log = bundle.join("delete-log.json");
            runtime.run(&self.children, &log, "OCI runtime delete failed", |command| {
                // A checkpoint may have removed it: that it is not there is no error.
                command.arg("delete").arg("--force").arg(id);
            })?;
            let root = bundle.join("rootfs");
            mounts::unmount_all(&root).map_err(|error| {
                Code::Unknown.because(format_args!("failed rootfs umount of {}: {error}", root.display()))
            })?;
        }
        if let Some(streams) = streams {
            streams.finish(&self.children);
        }
        let mut state = self.state();
        let process = match exec_id.as_str() {
            "" => state.tasks.remove(id).map(|task| task.init),
            exec_id => state.task(id)?.execs.remove(exec_id),
        };
        let mut process = process.ok_or_else(|| Code::NotFound.because(format_args!("{id} was deleted meanwhile")))?;
        let (pid, exit) = (process.number(), process.exit);
        // One that was never started may still be waited for.
        release(&mut process, exit.unwrap_or_else(Exit::killed));
        let (exit_status, exited_at) = (exit.map_or(0, |exit| exit.status), exit.map(|exit| exit.at.into()));
        if exec_id.is_empty() {
            let event = TaskDelete { container_id: id.clone(), pid, exit_status, exited_at };
            self.publisher.publish("/tasks/delete", &event);
        }
        Ok(DeleteResponse { pid, exit_status, exited_at })
    }
}

/// Answers those who wait for a process of which no end will be told.
fn release(process: &mut Process, exit: Exit) {
    for waiter in process.waiters.drain(..) {
        waiter.send(Ok(wait_response(exit)));
    }
}

fn note(process: &mut Process, launched: Launched) {
    process.set_pid(launched.pid);
    process.streams = Some(launched.streams);
}
