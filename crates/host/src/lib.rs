//! Every host system call that moat makes and that needs `unsafe`, typed.

pub mod inherited;
pub mod mounts;
pub mod process;
pub mod spawn;
