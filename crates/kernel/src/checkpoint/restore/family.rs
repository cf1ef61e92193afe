//! Who is whose parent, tracer, vfork(2) child; and what is left of processes and threads that have ended.

use std::sync::Arc;

use moat_image::refs::find;
use moat_image::state::{ContainerIndex, NextStep, ProcessState, SandboxState, TaskState as SavedTask};
use moat_image::{ImageError, Ref};

use super::Made;
use crate::checkpoint::{convert, trace};
use crate::process::group::ThreadGroup;
use crate::signal::state::GroupExit;
use crate::task::{CurrentTask, Login, TaskId, TaskState};

impl Made<'_> {
    /// Parents, process groups, zombies.
    pub(super) fn family(&mut self, state: &SandboxState) -> Result<(), ImageError> {
        for (at, process) in state.processes.iter().enumerate() {
            let group = self.groups[at].clone();
            let pgrp = find(&self.pgrps, process.process_group)?.clone();
            if process.zombie.is_some() && group.thread_count() != 0 {
                return Err(ImageError::state("a process that has ended has threads"));
            }
            self.ended_threads(&group, process)?;
            let leader = match &process.zombie {
                Some(zombie) if group.leader().is_none() => {
                    let creds = self.request.files.credentials_in(process.container, zombie.credentials)?;
                    let gone = self.gone(process.container, creds, zombie.comm.clone())?;
                    let leader = self.make(&group, group.pid(), gone, 0);
                    group.set_leader(&leader);
                    leader
                }
                _ => group.leader().ok_or_else(|| ImageError::state("a process lacks its first thread"))?,
            };
            // A circle of parents would have no end for those who look for an ancestor.
            let older = |name: Ref<ProcessState>| usize::try_from(name.index()).is_ok_and(|i| i < at);
            let parent = match process.parent {
                None => None,
                Some(name) if older(name) => {
                    let task = process.parent_task.map(|name| find(&self.tasks, name)).transpose()?;
                    Some((find(&self.groups, name)?.id, task.map_or(TaskId(0), |t| t.id)))
                }
                Some(_) => return Err(ImageError::state("a process is older than its parent")),
            };
            let mut family = self.kernel.family.lock();
            family.add(group.clone(), leader, parent, pgrp);
            if let (Some(zombie), Some(node)) = (&process.zombie, family.node_mut(group.id)) {
                let status = convert::end_of(zombie.status)?;
                node.zombie = Some(status);
                drop(family);
                group.signals.lock().exit = Some(GroupExit { status });
            }
        }
        Ok(())
    }

    /// Threads of a process that have ended and are still known.
    fn ended_threads(&mut self, group: &Arc<ThreadGroup>, process: &ProcessState) -> Result<(), ImageError> {
        for ended in &process.ended {
            let pid = find(&self.pids, ended.pid)?.clone();
            // Whoever has a number is found by it, so two can't.
            if self.kernel.tasks.get(&pid).is_some() {
                return Err(ImageError::state("a thread that has ended has the number of another"));
            }
            let creds = self.request.files.credentials_in(process.container, ended.credentials)?;
            let comm = ended.comm.iter().copied().filter(|b| *b != 0).take(15).collect();
            let task = self.make(group, &pid, self.gone(process.container, creds, comm)?, 0);
            task.usage.set(&convert::usage_of(ended.usage));
            if pid.id == group.pid().id {
                group.set_leader(&task);
            }
            self.ended.push((task, ended.clone()));
        }
        // It goes on with what wait(2) will give, whichever thread is last.
        let mut s = group.signals.lock();
        s.leader_status = process.leader_status.map(convert::end_of).transpose()?;
        if let Some(exit) = process.exit {
            s.exit = Some(GroupExit { status: convert::end_of(exit)? });
        }
        Ok(())
    }

    /// Ties tracers to their tracees.
    pub(super) fn traces(&self, state: &SandboxState, current: &mut [CurrentTask]) -> Result<(), ImageError> {
        for (task, saved) in current.iter_mut().zip(state.tasks.iter()) {
            if let Some(of) = &saved.trace {
                trace::restore(task, saved, of, find(&self.tasks, of.tracer)?)?;
            }
            // Lent before anything runs, so that the tracer finds it.
            if matches!(saved.thread.next, NextStep::Stopped(_)) {
                task.park_thread();
            }
        }
        for (task, ended) in &self.ended {
            if let Some(tracer) = ended.tracer {
                trace::await_end(task, ended, find(&self.tasks, tracer)?)?;
            }
        }
        Ok(())
    }

    /// The state of a thread that has ended.
    fn gone(
        &self,
        container: ContainerIndex,
        creds: Arc<moat_vfs::Credentials>,
        comm: Vec<u8>,
    ) -> Result<TaskState, ImageError> {
        Ok(TaskState {
            creds,
            comm,
            mm: None,
            fds: None,
            fs: None,
            namespaces: self.namespaces.own(container)?.namespaces.clone(),
            clear_child_tid: 0,
            robust_list: 0,
            pdeath_signal: None,
            sched: Default::default(),
            timer_slack_ns: 0,
            login: Login::NONE,
            personality: 0,
            seccomp: None,
            no_new_privs_by_sync: false,
            thp_disabled: false,
        })
    }

    /// Ties parents that wait for a vfork(2) child to it.
    pub(super) fn connect_vforks(&self, state: &SandboxState, current: &mut [CurrentTask]) {
        for (parent, saved) in state.tasks.iter().enumerate() {
            let Some(child) = trace::vfork_child(&saved.thread.next) else { continue };
            // A child that has other memory by now, or is gone, holds nobody up.
            let Some(here) = self.tasks.get(parent).map(|task| task.pid_ns()) else { continue };
            let has_number = |at: usize| self.tasks.get(at).is_some_and(|t| t.pid().number_in(&here) == child);
            let borrows =
                |(at, other): &(usize, &SavedTask)| *at != parent && other.memory == saved.memory && has_number(*at);
            let found = state.tasks.iter().enumerate().find(borrows).map(|(at, _)| at);
            crate::task::vfork::connect(current, parent, found, child);
        }
    }
}
