//! What is done with hostile bytes, each parser by itself: the bodies of the fuzz targets.
//!
//! `fuzz/fuzz_targets` has a program for each of [`TARGETS`], built for libFuzzer by `cargo x fuzz TARGET`; the unit test here runs each
//! over the files of `fuzz/corpus`, so that what was found once is looked at by every `cargo x test`. A body does no harm to the host
//! and keeps no state; it panics where something is wrong that the code itself would not notice.
//!
//! - [`files`]: programs, scripts, access lists, names and options that a guest writes or passes.
//! - [`filters`]: classic BPF.
//! - [`frames`]: packets of a hostile network, and the state machine of TCP behind them.
//! - [`messages`]: what processes say to each other: control, gofer, netlink, addresses, fanotify, monitors.
//! - [`stored`]: config.json, the state file, the sandbox's description, checkpoint images.
//! - [`terminal`]: the line discipline.
#![forbid(unsafe_code)]

pub mod files;
pub mod filters;
pub mod frames;
mod input;
pub mod messages;
pub mod stored;
pub mod terminal;

/// The name of a target, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_target_takes_its_corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, body) in TARGETS {
            let mut count = 0;
            for entry in std::fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")) {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                body(&bytes);
                // Ends in every byte: what is cut short is where lengths are believed.
                (0..bytes.len().min(512)).for_each(|n| body(&bytes[..n]));
                count += 1;
            }
            assert!(count > 0, "{name} has no corpus");
        }
    }

    #[test]
    fn every_target_has_a_program() {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
        for (name, _) in TARGETS {
            assert!(programs.join(name).with_extension("rs").exists(), "{name}");
        }
    }
}
