//! Classic BPF: programs of seccomp(2) and of SO_ATTACH_FILTER. One that passes the checks must end, whatever it is run on.

use moat_abi::ptrace::SockFilter;
use moat_bpf::{Input, Loads, Program, Size};

/// A packet, or `struct seccomp_data`, of these bytes.
struct Bytes<'a>(&'a [u8]);

impl Input for Bytes<'_> {
    fn length(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn load(&self, offset: u32, size: Size) -> Option<u32> {
        let rest = self.0.get(usize::try_from(offset).ok()?..)?;
        let bytes = rest.get(..size.bytes())?;
        Some(bytes.iter().fold(0u32, |value, b| value.wrapping_shl(8) | u32::from(*b)))
    }
}

/// Instructions of eight bytes each, run on the same bytes.
pub fn bpf(data: &[u8]) {
    let instruction = |b: &[u8]| match *b {
        [c0, c1, jt, jf, k0, k1, k2, k3] => {
            Some(SockFilter { code: u16::from_le_bytes([c0, c1]), jt, jf, k: u32::from_le_bytes([k0, k1, k2, k3]) })
        }
        _ => None,
    };
    for loads in [Loads::Words { len: 64 }, Loads::Packet] {
        let instructions = data.chunks_exact(8).filter_map(instruction).collect();
        if let Ok(program) = Program::new(instructions, loads) {
            // With the program as its own packet, comparisons of it can be true.
            program.run(&Bytes(data));
            program.run(&Bytes(&[]));
        }
    }
}
