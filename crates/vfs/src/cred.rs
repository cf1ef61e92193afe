//! Credentials and user namespaces, as [`moat_identity`] has them.

pub use moat_identity::credentials::Credentials;
pub use moat_identity::user_ns::{IdMaps, IdRange, UserNamespace};
