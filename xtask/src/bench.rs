//! `cargo x bench`.

use anyhow::{Result, bail};

/// Runs the benches.
pub fn run(_names: &[String]) -> Result<()> {
    bail!("no benches yet")
}
