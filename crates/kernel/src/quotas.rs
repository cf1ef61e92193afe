//! [`NamespaceQuotas`]: how many namespaces guests may make, by kind (`/proc/sys/user`).

use std::sync::Arc;

use moat_abi::Result;
use moat_identity::{Counter, NamespaceId, Quota};

/// Most namespaces of the cheap kinds.
const MANY: u64 = 16384;
/// Most network namespaces, each of which has a TCP/IP stack.
const FEW: u64 = 2048;

/// One quota for each kind.
#[allow(missing_docs)]
pub struct NamespaceQuotas {
    pub cgroup: Arc<Quota>,
    pub ipc: Arc<Quota>,
    pub mount: Arc<Quota>,
    pub net: Arc<Quota>,
    pub pid: Arc<Quota>,
    pub user: Arc<Quota>,
    pub uts: Arc<Quota>,
}

impl Default for NamespaceQuotas {
    fn default() -> NamespaceQuotas {
        NamespaceQuotas {
            cgroup: Quota::new(MANY),
            ipc: Quota::new(MANY),
            mount: Quota::new(MANY),
            net: Quota::new(FEW),
            pid: Quota::new(MANY),
            user: Quota::new(MANY),
            uts: Quota::new(MANY),
        }
    }
}

/// The number of a new namespace that counts towards `quota`.
///
/// # Errors
/// ENOSPC.
pub fn number(ids: &Counter, quota: &Arc<Quota>) -> Result<NamespaceId> {
    Ok(NamespaceId { charge: Some(quota.charge()?), number: ids.next() })
}
