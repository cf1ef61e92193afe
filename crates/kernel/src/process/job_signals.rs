//! The kernel's side of job control: [`JobSignals`] for sessions and terminals.

use std::sync::Arc;

use moat_abi::siginfo::SigInfo;
use moat_identity::session::JobSignals;
use moat_identity::{ProcessGroup, Session};

use crate::kernel::Kernel;
use crate::process::group::GroupId;
use crate::signal::send::send_to_process;

impl JobSignals for Kernel {
    fn signal_group(&self, group: &ProcessGroup, info: SigInfo) {
        // Collected first: signals are sent with the family unlocked.
        let members = self.family.lock().members(group.id());
        for m in members {
            send_to_process(&m, info);
        }
    }

    fn signal_leader(&self, session: &Session, info: SigInfo) {
        let leader = self.family.lock().node(GroupId(session.id())).map(|n| n.group.clone());
        if let Some(leader) = leader {
            send_to_process(&leader, info);
        }
    }

    fn process_group(&self, id: u64) -> Option<Arc<ProcessGroup>> {
        self.family.lock().pgrp(id)
    }

    fn is_orphaned(&self, group: &ProcessGroup) -> bool {
        self.family.lock().is_orphaned(group, None)
    }
}
