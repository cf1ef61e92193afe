//! What is done with hostile bytes, each parser by itself: the bodies of the fuzz targets.
//!
//! `fuzz/fuzz_targets` has a program for each of [`TARGETS`] and [`IN_A_KERNEL`], built for libFuzzer by `cargo x fuzz TARGET`; the unit test here runs each
//! over the files of `fuzz/corpus`, so that what was found once is looked at by every `cargo x test`. A body does no harm to the host
//! and keeps no state; it panics where something is wrong that the code itself would not notice.
//!
//! - [`files`]: programs, scripts, access lists, names and options that a guest writes or passes.
//! - [`filters`]: classic BPF.
//! - [`frames`]: packets of a hostile network, and the state machine of TCP behind them.
//! - [`messages`]: what processes say to each other: control, gofer, netlink, addresses, fanotify, monitors.
//! - [`stored`]: config.json, the state file, the sandbox's description, checkpoint images.
//! - [`terminal`]: the line discipline.
//! - [`walk`], [`sockets`], [`devices`], [`calls`]: paths, control messages and netlink, ioctls and settings, any calls: through the
//!   system calls of a kernel in this process ([`world`]).
#![forbid(unsafe_code)]

pub mod calls;
pub mod devices;
pub mod files;
pub mod filters;
pub mod frames;
mod input;
pub mod messages;
pub mod sockets;
pub mod stored;
pub mod terminal;
pub mod walk;
mod world;

/// The name of a target, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Parsers by themselves.
pub const TARGETS: &[Target] = &[
    ("elf", files::elf),
    ("script", files::script),
    ("acl", files::acl),
    ("mount_options", files::mount_options),
    ("bpf", filters::bpf),
    ("frames", frames::frames),
    ("control", messages::control),
    ("gofer", messages::gofer),
    ("netlink", messages::netlink),
    ("addresses", messages::addresses),
    ("fanotify", messages::fanotify),
    ("monitor", messages::monitor),
    ("config", stored::config),
    ("state", stored::state),
    ("spec", stored::spec),
    ("image", stored::image),
    ("terminal", terminal::terminal),
];

/// Targets that make a kernel for each input.
pub const IN_A_KERNEL: &[Target] = &[
    ("walk", walk::walk),
    ("cmsg", sockets::cmsg),
    ("rtnetlink", sockets::rtnetlink),
    ("sock_diag", sockets::sock_diag),
    ("ioctl", devices::ioctl),
    ("settings", devices::settings),
    ("calls", calls::calls),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_target_takes_its_corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, body) in TARGETS.iter().chain(IN_A_KERNEL) {
            let mut count = 0;
            // A kernel takes a while, and what it is told comes in pieces.
            let cuts = if IN_A_KERNEL.iter().any(|t| t.0 == *name) { 16 } else { 512 };
            for entry in std::fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")) {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                body(&bytes);
                // Ends in every byte: what is cut short is where lengths are believed.
                let step = bytes.len().div_ceil(cuts).max(1);
                (0..bytes.len()).step_by(step).for_each(|n| body(&bytes[..n]));
                count += 1;
            }
            assert!(count > 0, "{name} has no corpus");
        }
    }

    #[test]
    fn every_target_has_a_program() {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
        for (name, _) in TARGETS.iter().chain(IN_A_KERNEL) {
            assert!(programs.join(name).with_extension("rs").exists(), "{name}");
        }
    }
}
