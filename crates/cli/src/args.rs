//! Flags and commands. Names are runsc's and runc's where the meaning is the same.

mod accepted;
mod exec;
mod global;
mod lenient;
mod lifecycle;
mod metrics;
mod overlay;
mod resources;
mod tools;
mod trace;

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use exec::Exec;
pub(crate) use global::{
    FileAccess, Global, HostFifo, HostUds, LogFormat, Network, Platform, RootlessFlag, StraceFlag,
};
use lenient::{lenient, with_two_dashes};
pub(crate) use lifecycle::{
    Checkpoint, CloneContainer, Compression, Create, Delete, Id, Image, ImageCommand, Kill, List, ListFormat, Ps,
    Restore, Run, Wait,
};
pub(crate) use metrics::{ExportMetrics, MetricServer, Top, Usage};
pub(crate) use resources::{Events, Update};
pub(crate) use tools::{
    Client, Completion, Debug, Do, Doctor, Install, InstallPlace, Man, ProfileFiles, Profiles, Spec, Uninstall,
};
pub(crate) use trace::{Trace, TraceCommand};

/// What `moat --version` says, as Docker and Podman expect it.
fn version() -> &'static str {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), option_env!("MOAT_COMMIT").unwrap_or("unknown"));
    // The parser keeps it, and is made once.
    format!("version {version}\ncommit: {commit}\nspec: 1.2.0\nplatforms: systrap, ptrace").leak()
}

/// Runs containers, each on a Linux kernel of its own.
#[derive(Debug, Parser)]
#[command(name = "moat", bin_name = "moat", version = version(), about, disable_help_subcommand = false)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a container from an OCI bundle: its process is ready, and runs when it is started
    Create(Create),
    /// Let the process of a created container run
    Start(Id),
    /// Say what state a container is in, as JSON
    State(Id),
    /// Create and start a container, and wait for it
    Run(Run),
    /// Run another process in a container
    Exec(Box<Exec>),
    /// Send a signal to a container
    Kill(Kill),
    /// Remove a container
    Delete(Delete),
    /// List containers
    List(List),
    /// List the processes of a container
    Ps(Ps),
    /// Say what a container uses, at intervals, and when it runs out of memory, as lines of JSON
    Events(Events),
    /// Show what all containers use, again and again
    Top(Top),
    /// Say how much memory a container uses, and for what, as JSON
    Usage(Usage),
    /// Write the metrics of a container in Prometheus' text format
    ExportMetrics(ExportMetrics),
    /// Serve the metrics of all containers below --root to Prometheus, at the address of --metric-server
    MetricServer(MetricServer),
    /// Change the limits of a container
    Update(Box<Update>),
    /// Stop the processes of a container until it is resumed
    Pause(Id),
    /// Let the processes of a paused container go on
    Resume(Id),
    /// Wait for a container's process to end, and say how it did
    Wait(Wait),
    /// Save a container into an image, and end it
    Checkpoint(Box<Checkpoint>),
    /// Create a container from a bundle, and go on in it with the processes of an image
    Restore(Box<Restore>),
    /// Make containers that go on as a running one does, which goes on itself
    Clone(CloneContainer),
    /// Look at an image
    Image(Image),
    /// Write a config.json to begin with
    Spec(Spec),
    /// Say what this runtime can do, as JSON
    Features,
    /// Run a command in a fresh sandbox over the host's root file system, which stays as it is
    Do(Do),
    /// Tell monitors what happens in a sandbox, as runsc does
    Trace(Trace),
    /// Look into a sandbox
    Debug(Debug),
    /// Play an attacker who has taken over a sentry
    #[cfg(feature = "host-calls")]
    HostCalls(HostCalls),
    /// Look whether this host has what moat needs
    Doctor(Doctor),
    /// Make this runtime known to Docker, containerd and Podman
    Install(Install),
    /// The reverse of install
    Uninstall(Uninstall),
    /// Write the completions of a shell to standard output
    Completion(Completion),
    /// Write a manual page for each command into a directory
    Man(Man),
}

/// Arguments of `host-calls`.
#[cfg(feature = "host-calls")]
#[derive(Debug, clap::Args)]
pub(crate) struct HostCalls {
    pub(crate) id: String,
    /// A JSON list of calls
    pub(crate) calls: String,
}

/// How a command's flags are added to its definition.
type Augment = fn(clap::Command) -> clap::Command;

/// The commands that clients call in the life of a container, where a millisecond counts.
const FREQUENT: &[(&str, Augment)] = &[
    ("create", Create::augment_args),
    ("start", Id::augment_args),
    ("state", Id::augment_args),
    ("run", Run::augment_args),
    ("exec", Exec::augment_args),
    ("kill", Kill::augment_args),
    ("delete", Delete::augment_args),
    ("do", Do::augment_args),
];

impl Arguments {
    /// Parses a command line, `args[0]` included.
    ///
    /// # Errors
    /// What is wrong with it, or the help that it asks for.
    pub(crate) fn parse_line(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().collect();
        // The definition of all commands takes longer to build than most of them take to be carried out.
        let find = |arg: &OsString| FREQUENT.iter().find(|(name, _)| arg == name);
        let only = args.iter().find_map(find);
        let frequent = |(name, augment): &(&'static str, Augment)| {
            let command = clap::Command::new("moat").subcommand_required(true);
            lenient(Global::augment_args(command).subcommand(augment(clap::Command::new(*name))))
        };
        // To the parser "-root" would be the short flags r, o, o and t.
        let args = with_two_dashes(&args, || {
            // Behind a flag it may be that one's value.
            let is_flag = |arg: &OsString| arg.as_encoded_bytes().starts_with(b"-");
            let mut pairs = args.iter().zip(args.iter().skip(1));
            let sure = only.filter(|_| !pairs.any(|(before, word)| is_flag(before) && find(word).is_some()));
            sure.map_or_else(definition, frequent)
        });
        // The parser's own help knows of commands only.
        if args.iter().skip(1).eq(["help", "flags"]) {
            return Err(flags_alone().try_get_matches_from(["moat", "--help"]).err().unwrap_or_else(no_help));
        }
        let parsed =
            only.and_then(|command| Self::from_arg_matches(&frequent(command).try_get_matches_from(&args).ok()?).ok());
        // Whatever is wrong with it: the whole definition explains it better, and knows the other commands.
        match parsed {
            Some(arguments) => Ok(arguments),
            None => Self::from_arg_matches(&definition().try_get_matches_from(args)?),
        }
    }
}

fn no_help() -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::DisplayHelp, "")
}

/// The definition of all commands. The flags of sandboxes, which all of them have, are listed by `moat help flags` alone.
pub(crate) fn definition() -> clap::Command {
    let names = flag_names();
    let own = |arg: clap::Arg| {
        let hidden = arg.get_long().is_some_and(|long| names.contains(long));
        if hidden { arg.hide(true) } else { arg }
    };
    lenient(Arguments::command().mut_args(own).after_help(FLAGS_ELSEWHERE))
        .mut_subcommands(|command| command.after_help(FLAGS_ELSEWHERE))
}

const FLAGS_ELSEWHERE: &str = "Flags of all commands, about sandboxes, logs and cgroups: moat help flags";

/// What `moat help flags` lists.
fn flags_alone() -> clap::Command {
    let about = "Flags of all commands. A command line's own value counts before that of an annotation\n\
        dev.moat.flag.NAME, where /etc/moat/config.toml allows it, and that before the file's.";
    // Its own description is one line only.
    let command = Global::augment_args(clap::Command::new("moat"));
    lenient(command.about(about).long_about(None::<&str>).override_usage("moat [FLAGS] COMMAND ..."))
}

/// Names of the flags that all commands have.
pub(crate) fn flag_names() -> BTreeSet<String> {
    let command = Global::augment_args(clap::Command::new("moat"));
    command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect()
}

/// Whether these flags of all commands, `--NAME=VALUE`, have values that they can have.
///
/// # Errors
/// The flag and its value.
pub(crate) fn check_flags(flags: &[OsString]) -> anyhow::Result<()> {
    let line = std::iter::once("moat".into()).chain(flags.iter().cloned());
    flags_alone().try_get_matches_from(line).map(drop).map_err(|error| {
        let text = error.to_string();
        // The first line says it; usage follows.
        anyhow::anyhow!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::parse_line(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
        flags_alone().debug_assert();
    }

    #[test]
    fn flags_of_the_command_are_left_alone() {
        let arguments = parse("moat do --platform ptrace --strace ls --strace -l").unwrap();
        assert!(arguments.global.strace.is_some());
        let Command::Do(command) = arguments.command else { panic!("not do") };
        assert_eq!(command.command, ["ls", "--strace", "-l"]);
    }

    #[test]
    fn unknown_flags_are_errors() {
        for bad in ["moat --frob do ls", "moat do", "moat frob", "moat state", "moat kill", "moat exec c"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_flags_value_may_be_a_commands_name() {
        let arguments = parse("moat --root start state exec").unwrap();
        assert_eq!(arguments.global.root.as_deref(), Some(std::path::Path::new("start")));
        assert!(matches!(arguments.command, Command::State(Id { id }) if id == "exec"));
        assert!(matches!(parse("moat list --format json").unwrap().command, Command::List(_)));
        assert!(matches!(parse("moat spec run").unwrap().command, Command::Spec(_)));
    }

    #[test]
    fn of_two_the_last_counts_and_truths_are_gos() {
        let arguments =
            parse("moat --debug=true --network host -debug=0 --network=none --systemd-cgroup --systemd-cgroup=1 list")
                .unwrap();
        assert!(!arguments.global.debug && arguments.global.systemd_cgroup);
        assert!(matches!(arguments.global.network, Some(Network::None)));
        for (line, force) in [
            ("--force", true),
            ("--force=true", true),
            ("--force=false", false),
            ("-f", true),
            ("--force=1 --force=0", false),
        ] {
            let Command::Delete(delete) = parse(&format!("moat delete {line} id")).unwrap().command else {
                panic!("{line}")
            };
            assert_eq!(delete.force, force, "{line}");
        }
        let Command::Exec(exec) = parse("moat exec -e A=1 --tty=true -e B=2 -dt --debug=false id sh").unwrap().command
        else {
            panic!()
        };
        assert_eq!((exec.env, exec.tty, exec.detach), (vec!["A=1".to_owned(), "B=2".into()], true, true));
    }

    #[test]
    fn a_single_dash_is_two_until_a_guests_words() {
        let arguments =
            parse("moat --root start -debug exec -env A=-tty -dt -cwd -user -e B=1 -user 1:2 id ls -cwd -user");
        let arguments = arguments.unwrap();
        assert!(arguments.global.debug);
        let Command::Exec(exec) = arguments.command else { panic!("not exec") };
        assert_eq!(
            (exec.env, exec.cwd, exec.user),
            (vec!["A=-tty".into(), "B=1".into()], Some("-user".into()), Some("1:2".into()))
        );
        assert!(exec.tty && exec.detach);
        assert_eq!(exec.command, ["ls", "-cwd", "-user"]);
        let Command::Do(command) = parse("moat do -strace -volume /a:/b ls -strace").unwrap().command else { panic!() };
        assert_eq!((command.command, command.volume.len()), (vec!["ls".to_owned(), "-strace".into()], 1));
        let error = parse("moat -frob do ls").unwrap_err().to_string();
        assert!(error.contains("'--frob'"), "{error}");
    }

    #[test]
    fn flags_of_restore_may_have_one_dash() {
        let line = "moat --log l restore --image-path i -no-subreaper -d -b dir --detach=false id";
        let Command::Restore(restore) = parse(line).unwrap().command else { panic!("not restore") };
        assert!(restore.run.no_subreaper && !restore.run.detach && restore.run.create.id == "id");
        assert_eq!(restore.run.create.bundle, std::path::Path::new("dir"));
    }

    #[test]
    fn help_is_short_and_flags_have_their_own() {
        let help = parse("moat create --help").unwrap_err().to_string();
        assert!(help.lines().count() < 30 && help.contains("--bundle") && !help.contains("--overlay2"), "{help}");
        assert!(help.contains("moat help flags"), "{help}");
        let flags = parse("moat help flags").unwrap_err().to_string();
        for flag in ["--overlay2", "--oci-seccomp", "--gso", "--watchdog-action"] {
            assert!(flags.contains(flag), "{flag}: {flags}");
        }
    }

    #[test]
    fn as_clients_call_it() {
        for line in [
            "moat --debug=false run --bundle /b id",
            "moat -root /r -debug state id",
            "moat --root /run/containerd/runc/default --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid --console-socket /s id",
            "moat --root /r --log /b/log.json --log-format json start id",
            "moat --root /r --log /b/log.json --log-format json exec --process /tmp/p --console-socket /s --detach --pid-file /b/e.pid id",
            "moat --root /r --log /b/log.json --log-format json kill --all id 9",
            "moat --root /r --log /b/log.json --log-format json delete --force id",
            "moat --root /r --log /b/log.json --log-format json ps --format json id",
            "moat --root=/r --systemd-cgroup=true create --bundle /b --pid-file /p --no-pivot --no-new-keyring --preserve-fds 2 id",
            "moat --root=/r exec -d --pid-file /p --process /p2 --preserve-fds=1 --cap CAP_SYS_ADMIN -u 1:2 -e A=b -t id",
            "moat --rootless=true --root /r list -q",
            "moat --alsologtostderr --watchdog-action=log --gso=false --directfs=false --overlay2=none --file-access shared run -d id",
            "moat exec -t --user 1000:1000 --cwd / -e A=b id sh -c ls",
            "moat kill id",
            "moat kill id SIGTERM",
            "moat list --format json",
            "moat -root /r -log /b/log.json -log-format json create -bundle /b -pid-file /b/init.pid -console-socket /s id",
            "moat -root=/r -log=/b/log.json exec -process=/tmp/p -detach -pid-file /b/e.pid -internal-pid-file /b/i.pid id",
            "moat list -format json",
            "moat kill -all=true id 9",
            "moat delete -force id",
            "moat image -debug inspect /i",
            "moat state -- id",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }
}
