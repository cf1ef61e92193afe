//! [`Reading`]: the figures of one container at a moment.

use moat_control::ContainerMetrics;

use crate::cgroup::Stats;
use crate::container::Container;
use crate::error::Result;
use crate::store::Status;

/// What a container uses and has done.
#[derive(Debug)]
pub struct Reading {
    /// Its id.
    pub id: String,
    /// The id of its sandbox, which is that of the pod's first container.
    pub sandbox: String,
    /// The name of its pod, if a client said it.
    pub pod_name: Option<String>,
    /// The namespace of its pod, if a client said it.
    pub namespace_name: Option<String>,
    /// Its state.
    pub status: Status,
    /// When it was created, seconds after 1970.
    pub created_seconds: Option<f64>,
    /// What its sandbox counts, or why that is not known; nothing where none runs.
    pub counted: Option<Result<ContainerMetrics>>,
    /// What its cgroup counts, if it has one.
    pub cgroup: Option<Stats>,
    /// Processes of it that the host killed for want of memory, if its cgroup counts them.
    pub oom_kills: Option<u64>,
}

impl Reading {
    /// Asks sandbox and cgroup; waits for neither longer than for any other request.
    #[must_use]
    pub fn of(container: &Container) -> Self {
        let state = &container.state;
        let status = container.status();
        let runs = !matches!(status, Status::Creating | Status::Stopped);
        let counted = runs.then(|| container.sandbox()?.metrics(container.id().as_str()));
        let cgroup = state.cgroup.as_ref().filter(|_| runs);
        let annotation = |key: &str| state.annotations.get(key).cloned();
        Reading {
            id: container.id().to_string(),
            sandbox: state.sandbox.as_ref().map_or_else(|| container.id().to_string(), |sandbox| sandbox.id.clone()),
            pod_name: annotation("io.kubernetes.cri.sandbox-name"),
            namespace_name: annotation("io.kubernetes.cri.sandbox-namespace"),
            status,
            created_seconds: crate::timestamp::parse_seconds(&state.created),
            counted,
            cgroup: cgroup.and_then(|cgroup| cgroup.stats().ok()),
            oom_kills: cgroup.and_then(crate::cgroup::Cgroup::oom_kills),
        }
    }

    /// Its sandbox's figures.
    #[must_use]
    pub fn metrics(&self) -> Option<&ContainerMetrics> {
        self.counted.as_ref()?.as_ref().ok()
    }

    /// Whether it is its sandbox's first container.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.id == self.sandbox
    }
}
