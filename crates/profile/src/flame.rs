//! Flame graphs.

use std::io::{self, Write};

use inferno::flamegraph::{Options, from_lines};
use moat_control::ProfileKind;

use crate::profile::{Profile, Stack};

/// The stacks as lines of names and a value, as stackcollapse(1) gives them.
#[must_use]
pub fn folded(profile: &Profile) -> Vec<String> {
    let column = column(profile);
    let stacks = profile.stacks.iter().filter_map(|stack| {
        let value = stack.values.get(column).copied().filter(|value| *value > 0)?;
        Some(format!("{} {value}", names(profile, stack)))
    });
    stacks.collect()
}

/// What the width of a box is.
fn column(profile: &Profile) -> usize {
    const ALLOCATED_BYTES: usize = 1;
    const BYTES_IN_USE: usize = 3;
    match profile.kind {
        ProfileKind::Cpu | ProfileKind::Block | ProfileKind::Mutex => 1,
        ProfileKind::Heap => {
            let any_in_use = profile.stacks.iter().any(|stack| stack.values.get(BYTES_IN_USE) > Some(&0));
            if any_in_use { BYTES_IN_USE } else { ALLOCATED_BYTES }
        }
        ProfileKind::Tasks | ProfileKind::Trace | ProfileKind::Times | ProfileKind::Packets => 0,
    }
}

/// The name of the function in which a thread of Rust's library comes to what the program does.
const THREAD_BEGINS: &str = "__rust_begin_short_backtrace";

fn names(profile: &Profile, stack: &Stack) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut labels = 0;
    for index in stack.locations.iter().rev() {
        let Some(location) = profile.locations.get(*index) else { continue };
        if location.lines.is_empty() {
            names.push(unknown(profile, location));
        }
        // `;` and line ends have a meaning in this format.
        for line in location.lines.iter().rev() {
            names.push(line.function.replace([';', '\n', '\r'], ":"));
            if location.address == 0 {
                labels = names.len();
            } else if line.function.contains(THREAD_BEGINS) {
                // How a thread came there is the same for all.
                names.truncate(labels);
            }
        }
    }
    names.join(";")
}

fn unknown(profile: &Profile, location: &crate::profile::Location) -> String {
    let module = location.module.and_then(|index| profile.modules.get(index));
    match module {
        Some(module) => {
            let file = module.path.rsplit('/').next().unwrap_or_default().replace([';', '\n', '\r'], ":");
            format!("{file}+{:#x}", location.address.wrapping_sub(module.bias))
        }
        None => format!("{:#x}", location.address),
    }
}

/// Writes a flame graph as SVG.
///
/// # Errors
/// Of `to`; Other if there is nothing to show.
pub fn write(profile: &Profile, title: &str, to: impl Write) -> io::Result<()> {
    let lines = folded(profile);
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    let unit = match profile.kind {
        ProfileKind::Cpu | ProfileKind::Block | ProfileKind::Mutex => "ns",
        ProfileKind::Heap => "bytes",
        ProfileKind::Tasks | ProfileKind::Trace | ProfileKind::Times | ProfileKind::Packets => "tasks",
    };
    unit.clone_into(&mut options.count_name);
    from_lines(&mut options, lines.iter().map(String::as_str), to)
}
