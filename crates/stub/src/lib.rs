//! Programs without a C library: the node maker ([`node_maker`]), and the stub.
//!
//! The stub is the program that lives above the application in every guest process.
//!
//! `src/program` is a freestanding program of its own, built by `build.rs` for a fixed address and
//! embedded here as a flat [`IMAGE`]: it has no relocations, no data and no undefined symbols. It takes the
//! host's signals, tells the sentry why application code stopped, waits for the reply on a seccomp
//! notification, carries out orders and resumes. [`layout`] is what both sides share.
//!
//! # Invariants
//! - Nothing here is trusted by the sentry: it runs with the application's rights, in memory that the application can
//!   read, and any of its instructions can be jumped to. The seccomp filter is the boundary.
//! - All of it, and its data, lie above every address at which the filter lets a guest change mappings.

pub mod layout;
pub mod node_maker;

/// The stub's text, to be mapped at [`layout::STUB_BASE`], read and execute. Begins with [`layout::Header`].
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub.bin"));

/// The program of the [`node_maker`], an ELF file.
pub static NODE_MAKER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/node_maker.elf"));

/// The header of [`IMAGE`].
#[must_use]
pub fn header() -> layout::Header {
    let word = |i: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&IMAGE[i * 8..i * 8 + 8]);
        u64::from_le_bytes(bytes)
    };
    layout::Header { init: word(0), text_start: word(1), text_end: word(2), asks: word(3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_describes_the_image() {
        let header = header();
        let end = layout::STUB_BASE + IMAGE.len() as u64;
        assert!(header.text_start >= layout::STUB_BASE && header.text_end <= end);
        assert!((header.text_start..header.text_end).contains(&header.init));
        assert!((header.text_start..header.text_end).contains(&header.asks));
        assert!(core::mem::size_of::<layout::Control>() <= layout::STACK_OFFSET as usize);
    }
}
