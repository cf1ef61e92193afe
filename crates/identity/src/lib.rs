//! Who a task is and which world it sees: what every layer of the kernel may know of its caller.
//!
//! - [`pid`]: [`Pid`] and [`PidNamespace`], the numbers of tasks, process groups and sessions.
//! - [`session`]: [`ProcessGroup`] and [`Session`].
//! - [`credentials`], [`user_ns`]: users, groups, capabilities, and the namespace that they count in.
//! - [`limits`]: resource limits.
//! - [`namespaces`]: [`Namespaces`], the other namespaces of a task; [`net`] is the network namespace.
//! - [`extensions`]: what a subsystem keeps with a namespace or a session.
//! - [`quota`]: how many namespaces there may be.
//! - [`setting`]: a number of /proc/sys; [`tcp`]: those of TCP.
//! - [`ids`]: where the ids come from.
//!
//! # Invariants
//! - Nothing here knows a task, a file or a socket: those are in the layers above, which keep their own state with the
//!   objects of this crate through [`Extensions`].
//! - Nothing here is global. Two kernels in one process share no object and no counter.
//! - No method calls out while it holds a lock.
#![forbid(unsafe_code)]

pub mod credentials;
pub mod extensions;
pub mod ids;
pub mod limits;
pub mod namespaces;
pub mod net;
pub mod pid;
pub mod quota;
pub mod session;
pub mod setting;
pub mod tcp;
pub mod user_ns;

pub use credentials::Credentials;
pub use extensions::Extensions;
pub use ids::Counter;
pub use limits::{Limit, Limits, Resource};
pub use namespaces::{CgroupNamespace, IpcNamespace, Namespaces, UtsNamespace};
pub use net::NetNamespace;
pub use pid::{GroupId, Pid, PidNamespace, TaskId};
pub use quota::{NamespaceId, Quota};
pub use session::{ProcessGroup, Session};
pub use setting::Setting;
pub use tcp::TcpSettings;
pub use user_ns::{IdMaps, IdRange, UserNamespace};
