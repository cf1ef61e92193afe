//! Builds `src/program` as a freestanding program and writes its one segment to `OUT_DIR/stub.bin`; and the node maker,
//! whose ELF file is used as it is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for path in [
        "build.rs",
        "stub.ld",
        "node_maker.ld",
        "src/layout.rs",
        "src/raw.rs",
        "src/program",
        "src/node_maker.rs",
        "src/node_maker",
    ] {
        println!("cargo:rerun-if-changed={path}");
    }
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("OUT_DIR"));
    let elf = out.join("stub.elf");
    link(&here, "src/program/main.rs", "stub.ld", &elf);
    link(&here, "src/node_maker/program.rs", "node_maker.ld", &out.join("node_maker.elf"));
    let bytes = std::fs::read(&elf).expect("the linked stub");
    std::fs::write(out.join("stub.bin"), segment(&bytes)).expect("stub.bin");
}

fn link(here: &Path, main: &str, script: &str, elf: &Path) {
    let mut rustc = Command::new(env::var_os("RUSTC").expect("RUSTC"));
    rustc.arg(here.join(main)).arg("-o").arg(elf);
    rustc.args(["--crate-name", "stub_program", "--crate-type", "bin", "--edition", "2024"]);
    rustc.args(["--target", &env::var("TARGET").expect("TARGET")]);
    // The signal handler of the program may use no state but general registers cheaply, so: no vector code.
    for option in [
        "opt-level=2",
        "panic=abort",
        "overflow-checks=off",
        "debug-assertions=off",
        "debuginfo=0",
        "codegen-units=1",
        "relocation-model=pic",
        "force-unwind-tables=no",
        "no-vectorize-loops",
        "no-vectorize-slp",
        "link-arg=-nostartfiles",
        "link-arg=-nostdlib",
        "link-arg=-static",
        "link-arg=-no-pie",
        "strip=symbols",
    ] {
        rustc.args(["-C", option]);
    }
    for flag in ["--build-id=none", "--no-undefined", "-z,norelro", "-z,noexecstack", "--gc-sections"] {
        rustc.arg("-C").arg(format!("link-arg=-Wl,{flag}"));
    }
    rustc.arg("-C").arg(format!("link-arg=-Wl,-T,{}", here.join(script).display()));
    // Flags of the workspace (coverage, sanitizers) must not reach this program.
    rustc.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = rustc.status().expect("rustc runs");
    assert!(status.success(), "{main} does not build");
}

/// The bytes of the only loadable segment of an x86-64 executable, checked to have nothing beside it.
fn segment(elf: &[u8]) -> &[u8] {
    let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let word = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("eight bytes")) as usize;
    assert_eq!((&elf[..4], half(18)), (&b"\x7fELF"[..], 62), "an x86-64 ELF file");
    let (table, size, count) = (word(32), half(54), half(56));
    let loads: Vec<usize> =
        (0..count).map(|i| table + i * size).filter(|at| elf[*at..*at + 4] == 1u32.to_le_bytes()).collect();
    assert_eq!(loads.len(), 1, "one loadable segment");
    let (offset, address, in_file, in_memory) =
        (word(loads[0] + 8), word(loads[0] + 16), word(loads[0] + 32), word(loads[0] + 40));
    assert_eq!((address, in_file), (0x7fff_0000_0000, in_memory), "at its place, without zeroed data");
    &elf[offset..offset + in_file]
}
