//! The suite of every platform, and what is this platform's own.

use std::sync::{Arc, OnceLock};

use moat_platform::Platform;
use moat_platform_systrap::Systrap;

fn systrap() -> Arc<dyn Platform> {
    Arc::new(Systrap::new().expect("systrap starts"))
}

moat_platform::conformance_tests!(systrap());

/// Every `syscall` instruction of the stub, used by application code with registers of its own.
#[test]
fn stub_syscall_instructions_are_useless() {
    static SITES: OnceLock<Vec<u64>> = OnceLock::new();
    let sites = SITES.get_or_init(|| {
        let windows = (moat_stub::layout::STUB_BASE..).zip(moat_stub::IMAGE.windows(2));
        windows.filter(|(_, bytes)| **bytes == [0x0f, 0x05]).map(|(at, _)| at).collect()
    });
    assert!(sites.len() > 5);
    moat_platform::conformance::syscall_sites_are_useless(&moat_platform::conformance::Rig::new(systrap()), sites);
}
