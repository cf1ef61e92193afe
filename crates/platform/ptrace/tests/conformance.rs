//! The shared conformance cases on this platform.

use std::sync::Arc;

use moat_platform_ptrace::Ptrace;

moat_platform::conformance_tests!(Arc::new(Ptrace::new().expect("the ptrace platform")));
