//! Flags of runsc's that make no difference to moat, accepted so that configurations written for runsc work.

use clap::{Arg, ArgAction, ArgMatches, Args, Command};

/// Names of flags with a truth value.
const TRUTHS: &[&str] = &[
    "alsologtostderr",
    "app-huge-pages",
    "buffer-pooling",
    "cgroupfs",
    "debug-to-user-log",
    "enable-core-tags",
    "fuse",
    "gso",
    "gvisor-gro",
    "gvisor-marker-file",
    "kvm-use-cpu-nums",
    "lisafs",
    "log-packets",
    "net-raw",
    "profile",
    "rx-checksum-offload",
    "save-restore-netstack",
    "software-gso",
    "systrap-disable-fast-path",
    "systrap-disable-syscall-patching",
    "tx-checksum-offload",
    "vfs2",
];

/// Names of flags with another value.
const VALUES: &[&str] = &[
    "control-rpc-stop-timeout",
    "dcache",
    "debug-command",
    "debug-log-format",
    "fdlimit",
    "file-access-mounts",
    "host-settings",
    "metric-server",
    "network-processors-per-channel",
    "num-network-channels",
    "panic-signal",
    "qdisc",
    "ref-leak-mode",
    "shared-root",
    "traceback",
    "watchdog-action",
];

const HEADING: &str = "Flags of runsc without effect here";

/// Those flags; nothing is remembered of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accepted;

impl Args for Accepted {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str| {
            // Of two the last one counts, as with Go's flags.
            Arg::new(name).long(name).action(ArgAction::Append).help_heading(HEADING).hide_short_help(true)
        };
        let truths = TRUTHS.iter().map(|name| {
            flag(name).num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
        });
        let values = VALUES.iter().map(|name| flag(name).num_args(1).value_name("VALUE"));
        command.args(truths).args(values)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Accepted {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Accepted)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}
