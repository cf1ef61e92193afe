//! `moat host-calls`: makes a sentry do what an attacker would who has taken it over. Only in builds for a test.

use anyhow::Context;
use moat_runtime::Config;

use crate::args::HostCalls;

pub(super) fn run(config: &Config, flags: &HostCalls) -> anyhow::Result<u8> {
    let calls = serde_json::from_str(&flags.calls).context("the calls")?;
    super::print(&super::load(config, &flags.id)?.sandbox()?.host_calls(calls)?)?;
    Ok(0)
}
