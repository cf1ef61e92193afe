//! The sentry's own stack may lie wherever the host puts stacks, also where the template has the stub.

#![expect(unsafe_code, reason = "a stack at a chosen address is given to a thread")]

use moat_platform_systrap::Systrap;

/// Where the stub, the board and the first area begin (`moat_stub::layout`), and pages of each.
const PLACES: [(usize, usize); 3] = [(0x7fff_0000_0000, 16), (0x7fff_0fff_0000, 1), (0x7fff_1000_0000, 9)];
const PAGE: usize = 4096;
const BELOW: usize = 256 * PAGE;
const ABOVE: usize = 64 * PAGE;

extern "C" fn start(error: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: the caller's, which waits for this thread.
    let error = unsafe { &mut *error.cast::<Option<moat_platform_systrap::StartError>>() };
    *error = Systrap::new().err();
    std::ptr::null_mut()
}

/// Starts a platform on a thread whose stack ends at `top`.
fn start_below(top: usize) -> Option<moat_platform_systrap::StartError> {
    let mut error = None;
    // SAFETY: the attributes are initialised; the stack is mapped by the caller and outlives the thread.
    unsafe {
        let mut attributes = std::mem::zeroed();
        let mut thread = std::mem::zeroed();
        assert_eq!(libc::pthread_attr_init(&raw mut attributes), 0);
        assert_eq!(libc::pthread_attr_setstack(&raw mut attributes, (top - BELOW) as *mut _, BELOW), 0);
        assert_eq!(libc::pthread_create(&raw mut thread, &raw const attributes, start, (&raw mut error).cast()), 0);
        assert_eq!(libc::pthread_join(thread, std::ptr::null_mut()), 0);
        libc::pthread_attr_destroy(&raw mut attributes);
    }
    error
}

#[test]
fn the_stack_may_lie_in_the_stubs_places() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    for (start, pages) in PLACES {
        let (from, len) = (start - BELOW, BELOW + pages * PAGE + ABOVE);
        // SAFETY: nothing that is mapped is replaced.
        let stack = unsafe { libc::mmap(from as *mut _, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if stack as usize != from {
            // One time in some thousands the host has put this process's own stack or vDSO there.
            continue;
        }
        for page in 1..pages + ABOVE / PAGE {
            assert_eq!(start_below(start + page * PAGE), None, "below page {page} of {start:#x}");
        }
        // SAFETY: mapped above, and its threads have ended.
        unsafe { libc::munmap(stack, len) };
    }
}
