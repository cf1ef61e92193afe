//! [`Owner`]: who is sent signals about a file (F_SETOWN of fcntl(2)).

use std::sync::Arc;

use moat_identity::Pid;

/// Who is sent a signal when a file becomes ready: F_SETOWN of fcntl(2).
#[derive(Clone, Default)]
#[allow(missing_docs)]
pub enum OwnerId {
    #[default]
    None,
    Thread(Arc<Pid>),
    Process(Arc<Pid>),
    Group(Arc<Pid>),
}

/// The owner with the ids it was set under, by which the signal's permission is checked.
#[derive(Clone, Default)]
#[allow(missing_docs)]
pub struct Owner {
    pub id: OwnerId,
    pub uid: u32,
    pub euid: u32,
}
