//! The machine: CPUs and the auxiliary vector.

/// The CPU that the calling thread runs on, by `rdpid` or the vDSO; no system call.
#[must_use]
pub fn current() -> usize {
    rustix::thread::sched_getcpu()
}

/// How many CPUs the calling thread may run on; at least 1.
#[must_use]
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The value of `tag` (`AT_*` of moat_abi::elf) in this process's auxiliary vector; 0 if it has none.
#[must_use]
pub fn auxv(tag: u64) -> u64 {
    // SAFETY: looks the tag up in the C library's copy of the vector.
    unsafe { libc::getauxval(tag) }
}

/// What CPUID says of this CPU, as /proc/cpuinfo shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// "GenuineIntel", "AuthenticAMD".
    pub vendor: String,
    /// The brand string.
    pub model_name: String,
    /// Family, extended part included.
    pub family: u32,
    /// Model, extended part included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// Base frequency, where the CPU tells it.
    pub mhz: Option<u32>,
    /// Bits of a physical address.
    pub physical_bits: u32,
    /// Bits of a linear address.
    pub virtual_bits: u32,
    /// Features by Linux's names.
    pub flags: Vec<&'static str>,
}

/// Names of the bits of a CPUID register, from bit 0; "" where Linux shows nothing.
type Bits = [&'static str; 32];

#[rustfmt::skip]
const LEAF1_EDX: Bits = ["fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep", "mtrr", "pge", "mca", "cmov",
    "pat", "pse36", "pn", "clflush", "", "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe"];
#[rustfmt::skip]
const LEAF1_ECX: Bits = ["pni", "pclmulqdq", "dtes64", "monitor", "ds_cpl", "vmx", "smx", "est", "tm2", "ssse3", "cid", "sdbg", "fma",
    "cx16", "xtpr", "pdcm", "", "pcid", "dca", "sse4_1", "sse4_2", "x2apic", "movbe", "popcnt", "tsc_deadline_timer", "aes", "xsave",
    "", "avx", "f16c", "rdrand", "hypervisor"];
#[rustfmt::skip]
const LEAF7_EBX: Bits = ["fsgsbase", "tsc_adjust", "sgx", "bmi1", "hle", "avx2", "", "smep", "bmi2", "erms", "invpcid", "rtm", "cqm", "",
    "mpx", "rdt_a", "avx512f", "avx512dq", "rdseed", "adx", "smap", "avx512ifma", "", "clflushopt", "clwb", "intel_pt", "avx512pf",
    "avx512er", "avx512cd", "sha_ni", "avx512bw", "avx512vl"];
#[rustfmt::skip]
const EXT1_EDX: Bits = ["", "", "", "", "", "", "", "", "", "", "", "syscall", "", "", "", "", "", "", "", "mp", "nx", "", "mmxext", "", "",
    "fxsr_opt", "pdpe1gb", "rdtscp", "", "lm", "3dnowext", "3dnow"];
#[rustfmt::skip]
const EXT1_ECX: Bits = ["lahf_lm", "cmp_legacy", "svm", "extapic", "cr8_legacy", "abm", "sse4a", "misalignsse", "3dnowprefetch", "osvw",
    "ibs", "xop", "skinit", "wdt", "", "lwp", "fma4", "tce", "", "nodeid_msr", "", "tbm", "topoext", "perfctr_core", "perfctr_nb", "",
    "bpext", "ptsc", "perfctr_llc", "mwaitx", "", ""];

fn names(register: u32, bits: &Bits, into: &mut Vec<&'static str>) {
    into.extend(
        bits.iter().enumerate().filter(|(n, name)| register >> n & 1 == 1 && !name.is_empty()).map(|(_, name)| *name),
    );
}

/// Asks the CPU.
#[must_use]
pub fn describe() -> Description {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let text = |words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).take_while(|b| *b != 0).collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    };
    let (zero, one, ext) = (__cpuid(0), __cpuid(1), __cpuid(0x8000_0000));
    let mut d = Description { vendor: text(&[zero.ebx, zero.edx, zero.ecx]), ..Description::default() };
    let family = one.eax >> 8 & 0xf;
    d.family = if family == 0xf { family.wrapping_add(one.eax >> 20 & 0xff) } else { family };
    d.model = (one.eax >> 4 & 0xf) | if family == 6 || family == 0xf { one.eax >> 12 & 0xf0 } else { 0 };
    d.stepping = one.eax & 0xf;
    names(one.edx, &LEAF1_EDX, &mut d.flags);
    if ext.eax >= 0x8000_0001 {
        names(__cpuid(0x8000_0001).edx, &EXT1_EDX, &mut d.flags);
    }
    names(one.ecx, &LEAF1_ECX, &mut d.flags);
    if ext.eax >= 0x8000_0001 {
        names(__cpuid(0x8000_0001).ecx, &EXT1_ECX, &mut d.flags);
    }
    if zero.eax >= 7 {
        names(__cpuid_count(7, 0).ebx, &LEAF7_EBX, &mut d.flags);
    }
    if zero.eax >= 0x16 {
        d.mhz = Some(__cpuid(0x16).eax & 0xffff).filter(|mhz| *mhz > 0);
    }
    if ext.eax >= 0x8000_0004 {
        let brand: Vec<u32> = (0x8000_0002..=0x8000_0004)
            .flat_map(|l| {
                let r = __cpuid(l);
                [r.eax, r.ebx, r.ecx, r.edx]
            })
            .collect();
        d.model_name = text(&brand);
    }
    if ext.eax >= 0x8000_0008 {
        let sizes = __cpuid(0x8000_0008).eax;
        (d.physical_bits, d.virtual_bits) = (sizes & 0xff, sizes >> 8 & 0xff);
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::elf::{AT_PAGESZ, AT_SYSINFO_EHDR};

    #[test]
    fn the_machine_is_sane() {
        assert!(available() >= 1);
        assert_eq!(auxv(AT_PAGESZ), 4096);
        assert_ne!(auxv(AT_SYSINFO_EHDR), 0);
        assert_eq!(auxv(0x7777), 0);
    }
}
