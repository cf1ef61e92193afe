//! Random bytes, from the host's getrandom(2).

/// Fills `buf`.
pub fn fill(buf: &mut [u8]) {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => done += n,
            // The only error that remains once the host has booted.
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                tracing::error!(%e, "the host gives no random bytes");
                std::process::abort();
            }
        }
    }
}
