//! Flags of runsc's that make no difference to moat, accepted so that configurations written for runsc work.

use clap::{Arg, ArgAction, ArgMatches, Args, Command};

/// Names of flags with a truth value, and why it does not matter.
const TRUTHS: &[(&str, &str)] = &[
    ("alsologtostderr", "messages go to --debug-log, or to standard error without it"),
    ("app-huge-pages", "the host's kernel decides about huge pages"),
    ("buffer-pooling", "buffers of the network are not pooled by a flag"),
    ("cgroupfs", "the guest always has a view of its cgroups"),
    ("debug-to-user-log", "the user's log has messages for the user only"),
    ("enable-core-tags", "moat's threads are not tagged for core scheduling"),
    ("fuse", "guests have no FUSE"),
    ("gso", "packets are not segmented by the host on demand"),
    ("gvisor-gro", "packets are not coalesced"),
    ("gvisor-marker-file", "guests are not told which kernel they have by a file"),
    ("kvm-use-cpu-nums", "there is no KVM platform"),
    ("lisafs", "--directfs=false chooses the gofer's protocol, and there is one only"),
    ("log-packets", "packets are logged by tcpdump on the container's interface"),
    ("net-raw", "CAP_NET_RAW of config.json decides alone"),
    ("profile", "moat debug makes profiles without it"),
    ("rx-checksum-offload", "nothing checks checksums twice"),
    ("save-restore-netstack", "a checkpoint always has what of the network can be saved"),
    ("software-gso", "packets are not segmented in software"),
    ("systrap-disable-fast-path", "systrap's only path is the fast one"),
    ("tx-checksum-offload", "nothing checks checksums twice"),
    ("vfs2", "there is one VFS"),
];

/// The same of flags with another value.
const VALUES: &[(&str, &str)] = &[
    ("control-rpc-stop-timeout", "a request to a sandbox has a time limit of its own"),
    ("dcache", "the cache of names has no size to set"),
    ("debug-command", "--debug logs all commands"),
    ("debug-log-format", "--log-format is the format of all logs"),
    ("fdlimit", "a sandbox raises its limit to the hard one"),
    ("file-access-mounts", "bind mounts are always shared with the host"),
    ("host-settings", "the host's settings are not changed"),
    ("network-processors-per-channel", "the network has no channels"),
    ("num-network-channels", "the network has no channels"),
    ("panic-signal", "a sandbox that is stuck is looked into by moat debug"),
    ("qdisc", "packets are not queued by a discipline"),
    ("ref-leak-mode", "references are the compiler's affair"),
    ("shared-root", "sandboxes share no gofer root"),
    ("traceback", "--panic-log has the trace of a sandbox that breaks down"),
    ("watchdog-action", "the watchdog always logs, and never ends a sandbox"),
];

const HEADING: &str = "Flags of runsc without effect here";

/// Those flags; nothing is remembered of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accepted;

impl Args for Accepted {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str, why: &'static str| {
            // Of two the last one counts, as with Go's flags.
            Arg::new(name).long(name).help(why).action(ArgAction::Append).help_heading(HEADING)
        };
        let truths = TRUTHS.iter().map(|(name, why)| {
            flag(name, why).num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
        });
        let values = VALUES.iter().map(|(name, why)| flag(name, why).num_args(1).value_name("VALUE"));
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
