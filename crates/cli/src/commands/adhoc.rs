//! `moat do`.

use std::io::IsTerminal;

use anyhow::Context;
use moat_runtime::Config;
use moat_runtime::adhoc::{Request, Volume, blueprint};

use crate::args::Do;

pub(super) fn run(config: &Config, flags: Do) -> anyhow::Result<u8> {
    let volumes = flags.volume.iter().map(|text| text.parse::<Volume>()).collect::<Result<_, _>>()?;
    let inherited = if flags.clear_env { Vec::new() } else { inherited_env() };
    let request = Request {
        args: flags.command,
        env: merged_env(inherited, &flags.env),
        cwd: flags.cwd.map(std::path::absolute).transpose().context("--cwd")?,
        root: flags.root,
        uid: flags.uid,
        gid: flags.gid,
        volumes,
        terminal: std::io::stdin().is_terminal(),
    };
    super::run_attached(config, blueprint(request)?, "do")
}

/// The caller's variables; those that are not UTF-8 stay behind.
fn inherited_env() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value.to_str()?))).collect()
}

/// `set` on top of `env`; a bare name is passed on from the caller's environment if it is there.
fn merged_env(mut env: Vec<String>, set: &[String]) -> Vec<String> {
    for setting in set {
        let (name, text) = match setting.split_once('=') {
            Some((name, _)) => (name, Some(setting.clone())),
            None => (setting.as_str(), std::env::var(setting).ok().map(|value| format!("{setting}={value}"))),
        };
        env.retain(|old| old.split_once('=').is_none_or(|(old_name, _)| old_name != name));
        env.extend(text);
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_replace() {
        let env = vec!["A=1".to_owned(), "B=2".to_owned()];
        assert_eq!(merged_env(env, &["A=3=4".into(), "C=".into()]), ["B=2", "A=3=4", "C="]);
    }
}
