//! The seccomp profile of a container.

use serde::{Deserialize, Serialize};

/// A profile, as the program that the guest's kernel runs for each call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompSpec {
    /// Classic BPF over `struct seccomp_data`.
    pub program: Vec<BpfInstruction>,
    /// `SECCOMP_FILTER_FLAG_LOG`: every result but "allow" is logged.
    pub log: bool,
}

/// `struct sock_filter`: code, jt, jf and k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfInstruction(pub u16, pub u8, pub u8, pub u32);
