//! `moat wait`.

use moat_runtime::Config;
use serde::Serialize;

use crate::args::Wait;

/// What runsc says.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    #[serde(rename = "exitStatus")]
    exit_status: u8,
}

pub(super) fn run(config: &Config, flags: &Wait) -> anyhow::Result<u8> {
    let container = super::load(config, &flags.id)?;
    let status = match flags.pid {
        Some(pid) => container.wait_pid(pid)?,
        None => container.wait()?,
    };
    let answer = Answer { id: &flags.id, exit_status: status.shell_code() };
    super::print(&format!("{}\n", serde_json::to_string(&answer)?))?;
    Ok(0)
}
