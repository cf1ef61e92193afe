//! The wall time of `docker run --rm deb:1 true` with each runtime.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::table::Table;
use crate::test::oci::world::{Service, World};
use crate::test::{Ending, RootKind, ensure_root};

/// Measures with runc, moat and runsc, and prints the table.
pub fn run(moat: &Path, rounds: usize) -> Result<()> {
    let root = ensure_root(RootKind::Base)?;
    let world = World::start(moat, &root, &[Service::Containerd, Service::Docker])?;
    if let Some(reason) = world.missing(Service::Docker) {
        println!("docker: not measured: {reason}");
        return Ok(());
    }
    let mut columns = vec!["runc", "moat"];
    if super::has_runsc() {
        columns.push("runsc");
    }
    let mut table = Table::default();
    for _ in 0..rounds {
        for &runtime in &columns {
            let script = "exec docker run --rm --network none --runtime $RUNTIME deb:1 true";
            let outcome = world.run(script, &[("RUNTIME", runtime)], Duration::from_secs(60))?;
            if outcome.ending == Ending::Exited(0) {
                table.add("docker-run", runtime, outcome.elapsed.as_nanos() as f64);
            } else {
                eprintln!("{runtime}: {}: {}", outcome.ending, String::from_utf8_lossy(&outcome.stderr));
            }
        }
    }
    table.print(&columns);
    Ok(())
}
