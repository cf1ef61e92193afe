//! Calls that change containers which are there: signals, pauses, limits, images.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use moat_abi::Signal;
use moat_runtime::sandbox::ContainerTarget;

use super::Service;
use crate::messages::{
    CheckpointOptions, CheckpointTaskRequest, Empty, KillRequest, ProcessRequest, TaskCheckpointed, TaskPaused,
    TaskResumed, UpdateTaskRequest,
};
use crate::runtime::{Runtime, status};
use crate::ttrpc::{Code, Status, decode};

impl Service {
    /// Sends a signal.
    pub(super) fn kill(&self, request: &KillRequest) -> Result<Empty, Status> {
        let number = i32::try_from(request.signal).ok().filter(|number| (0..=64).contains(number));
        let number = number.ok_or_else(|| Code::InvalidArgument.because("no signal"))?;
        let runtime = {
            let mut state = self.state();
            let task = state.task(&request.id)?;
            let runtime = Arc::clone(&task.runtime);
            let process = task.process(&request.exec_id)?;
            if process.exit.is_some() {
                // By this clients clean up.
                let is_clean_up = request.all && request.exec_id.is_empty();
                let finished = || Code::NotFound.because("process already finished");
                return if is_clean_up { Ok(Empty {}) } else { Err(finished()) };
            }
            if process.pid == 0 {
                return Err(Code::FailedPrecondition.because("process not created"));
            }
            if !request.exec_id.is_empty() {
                // The process that stands for it passes the signal on; killed, it takes the other with it.
                let host = process.host.ok_or_else(|| Code::NotFound.because("process already finished"))?;
                let signal = Signal::new(number).ok_or_else(|| Code::InvalidArgument.because("no signal"))?;
                return host.signal(signal).map(|()| Empty {}).map_err(|error| Code::Unknown.because(error));
            }
            runtime
        };
        let target = if request.all { ContainerTarget::All } else { ContainerTarget::Init };
        runtime.container(&request.id)?.kill(number, target).map_err(status)?;
        Ok(Empty {})
    }

    /// Stops all processes of a container where they are.
    pub(super) fn pause(&self, request: &ProcessRequest) -> Result<Empty, Status> {
        let (runtime, _) = self.place(&request.id)?;
        runtime.container(&request.id)?.pause().map_err(status)?;
        self.note_paused(&request.id, true);
        self.publisher.publish("/tasks/paused", &TaskPaused { container_id: request.id.clone() });
        Ok(Empty {})
    }

    /// Lets them go on.
    pub(super) fn resume(&self, request: &ProcessRequest) -> Result<Empty, Status> {
        let (runtime, _) = self.place(&request.id)?;
        runtime.container(&request.id)?.resume().map_err(status)?;
        self.note_paused(&request.id, false);
        self.publisher.publish("/tasks/resumed", &TaskResumed { container_id: request.id.clone() });
        Ok(Empty {})
    }

    fn note_paused(&self, id: &str, is_paused: bool) {
        // It may be gone.
        if let Ok(task) = self.state().task(id) {
            task.is_paused = is_paused;
        }
    }

    /// Changes a container's limits.
    pub(super) fn update(&self, request: &UpdateTaskRequest) -> Result<Empty, Status> {
        let (runtime, bundle) = self.place(&request.id)?;
        let resources = request.resources.as_ref();
        let resources = resources.ok_or_else(|| Code::InvalidArgument.because("no resources to update"))?;
        let file = bundle.join("resources.json");
        fs::write(&file, &resources.value).map_err(|error| Code::Unknown.because(error))?;
        let log = bundle.join("update-log.json");
        let updated = runtime.run(&self.children, &log, "OCI runtime update failed", |command| {
            command.args(["update", "--resources"]).arg(&file).arg(&request.id);
        });
        let _ = fs::remove_file(&file);
        updated.map(|()| Empty {})
    }

    /// Saves a container.
    pub(super) fn checkpoint(&self, request: &CheckpointTaskRequest) -> Result<Empty, Status> {
        let (runtime, bundle) = self.place(&request.id)?;
        let options: CheckpointOptions = match &request.options {
            Some(any) => decode(&any.value)?,
            None => CheckpointOptions::default(),
        };
        // containerd has a directory of its own for each image, which it takes apart; a client may want it elsewhere.
        let path = if options.image_path.is_empty() { &request.path } else { &options.image_path };
        let log = bundle.join("checkpoint-log.json");
        runtime.run(&self.children, &log, "OCI runtime checkpoint failed", |command| {
            command.args(["checkpoint", "--image-path", path]);
            if !options.exit {
                command.arg("--leave-running");
            }
            command.arg(&request.id);
        })?;
        let event = TaskCheckpointed { container_id: request.id.clone(), checkpoint: path.clone() };
        self.publisher.publish("/tasks/checkpointed", &event);
        Ok(Empty {})
    }

    /// How a container's runtime is run, and its bundle.
    pub(super) fn place(&self, id: &str) -> Result<(Arc<Runtime>, PathBuf), Status> {
        let mut state = self.state();
        let task = state.task(id)?;
        Ok((Arc::clone(&task.runtime), task.bundle.clone()))
    }
}
