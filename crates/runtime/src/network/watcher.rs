//! The watcher: a small host process that tells a sandbox which interfaces come and go after its start.
//!
//! Engines move an interface into a running container's network namespace, or out of it, and call no runtime
//! (`docker network connect`). The sandbox has no right over the namespace, so this program, executed again, stays in it: it
//! waits for the kernel's news, and does with a new interface what [`super::take_over`] did with the first ones, and passes on which routes by
//! gateways come and go, as the default route does with the network that an engine prefers ([`super::ways`]). It has
//! CAP_NET_ADMIN and CAP_NET_RAW, no file, and the host calls of [`rules`]; from the sandbox it takes a number for each
//! interface. It ends with the sandbox.

mod rules;

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use moat_control::spec::RunAs;
use moat_control::{Connection, Request, Response};
use moat_host::spawn::{Credentials, Donation, Joins, Namespaces, ParentDeath, Spawn};
use moat_jail::privileges;
use moat_jail::seccomp::Refusal;
use moat_net_stack::config::{NetworkConfig, RouteConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, pidfd_open};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, move_into_link_name_space};

use super::links::{self, Found};
use super::netlink::{Monitor, Netlink};
use super::{DOCKER_RESOLVER, detach, nameservers, resolver, ways};
use crate::error::{Context, Error, Result};

/// `argv[0]` of a watcher.
pub const PROCESS_NAME: &str = "moat-links";

/// An engine sets addresses and routes one by one after the interface is there; it has done so when nothing was changed for
/// as long as this.
const QUIET: Duration = Duration::from_millis(200);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the process keeps: to take addresses off, and to open packet sockets.
const CAPABILITIES: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// What was done before it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Has {
    /// The sandbox has a resolver.
    pub(crate) resolver: bool,
    /// The namespace has kept its routes.
    pub(crate) ways: bool,
}

/// Starts a watcher for the sandbox whose process is `pid`, over a control connection of its own; `known` are the
/// numbers of the interfaces that it has.
///
/// # Errors
/// Of clone(2) and open(2).
pub(crate) fn start(pid: i32, connection: OwnedFd, known: &[u32], has: Has) -> Result<()> {
    let what = || "starting a watcher of interfaces".to_owned();
    let path = format!("/proc/{pid}/ns/net");
    let namespace = std::fs::File::open(&path).context(|| format!("opening {path}"))?;
    let pidfd = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let mut donation = Donation::default();
    // In the order in which `main` claims them.
    donation.add(connection);
    donation.add(namespace.into());
    donation.add(pidfd.context(what)?);
    let word = |has: bool, word: &str| if has { word.to_owned() } else { "none".to_owned() };
    let (resolver, ways) = (word(has.resolver, "resolver"), word(has.ways, "ways"));
    let mut args = vec![PROCESS_NAME.to_owned(), donation.len().to_string(), resolver, ways];
    args.extend(known.iter().map(u32::to_string));
    // Words and numbers, without a NUL.
    let args: Vec<CString> = args.into_iter().filter_map(|arg| CString::new(arg).ok()).collect();
    Spawn {
        args: &args,
        env: &[],
        namespaces: Namespaces::empty(),
        joins: Joins::default(),
        id_maps: None,
        cgroups: Default::default(),
        credentials: Credentials::Keep,
        controlling_terminal: None,
        // It outlives this command.
        parent_death: ParentDeath::Ignore,
    }
    .run(donation)
    .map(drop)
    .context(what)
}

/// The program of a watcher. `args` is argv after the name; gives the exit code.
pub fn main(args: impl Iterator<Item = OsString>) -> u8 {
    let _ = rustix::thread::set_name(c"moat-links");
    // Nobody may be left to hear of a failure: the sandbox goes on with the interfaces that it has.
    u8::from(watch(args).is_none())
}

fn watch(mut args: impl Iterator<Item = OsString>) -> Option<()> {
    let mut word = || args.next()?.into_string().ok();
    let donated = word()?.parse().ok()?;
    let resolver = word()? == "resolver";
    let ways = word()? == "ways";
    let known = std::iter::from_fn(|| word()?.parse().ok()).map(|index: u32| (index, index)).collect();
    let mut fds = moat_host::inherited::claim(Donation::FIRST, donated).ok()?.into_iter();
    let (connection, namespace, sandbox) = (fds.next()?, fds.next()?, fds.next()?);
    leave_stdio().ok()?;
    let nameservers = nameservers::read();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).ok()?;
    drop(namespace);
    let monitor = Monitor::open().ok()?;
    let netlink = Netlink::open().ok()?;
    // Where no other id is mapped it stays who it is; the filter leaves it no file in either case.
    privileges::drop_all_but(RunAs::Nobody, CAPABILITIES)
        .or_else(|_| privileges::drop_all_but(RunAs::Creator, CAPABILITIES))
        .ok()?;
    // Others that are nobody see nothing of it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).ok()?;
    moat_jail::seccomp::install(rules::all(), Refusal::Kill).ok()?;
    let connection = Connection::new(connection);
    let has = Has { resolver, ways };
    Watcher { netlink, monitor, connection, known, routes: None, has, nameservers }.run(&sandbox)
}

/// The descriptors 0 to 2 may be pipes whose end a client waits for.
fn leave_stdio() -> io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

struct Watcher {
    netlink: Netlink,
    monitor: Monitor,
    connection: Connection,
    /// The numbers of interfaces that the sandbox has, here and there.
    known: BTreeMap<u32, u32>,
    /// The routes by gateways that the sandbox has been told of; none before the first look.
    routes: Option<Vec<RouteConfig>>,
    has: Has,
    /// The host's, for a sandbox that gets its resolver late.
    nameservers: Vec<IpAddr>,
}

impl Watcher {
    /// Returns when the sandbox has ended, or does not listen.
    fn run(mut self, sandbox: &OwnedFd) -> Option<()> {
        loop {
            // What came before the monitor was there is found the first time.
            self.look()?;
            wait(&[sandbox.as_fd(), self.connection.as_fd(), self.monitor.as_fd()], None)?;
            if wait(&[sandbox.as_fd(), self.connection.as_fd()], Some(Duration::ZERO))? {
                return Some(());
            }
            while wait(&[self.monitor.as_fd()], Some(QUIET))? {
                self.monitor.drain().ok()?;
            }
        }
    }

    fn look(&mut self) -> Option<()> {
        let found = links::read(&mut self.netlink).ok()?;
        let gone: Vec<u32> = self.known.keys().filter(|index| !found.present.contains(index)).copied().collect();
        for index in gone {
            if let Some(theirs) = self.known.remove(&index) {
                // The sandbox may have given it up by itself.
                let _ = self.ask(&Request::RemoveLink(theirs), &[]);
            }
        }
        let new: Vec<u32> = found.config.links.iter().map(|link| link.index).collect();
        for index in new.into_iter().filter(|index| !self.known.contains_key(index)).collect::<Vec<_>>() {
            // Once: what can't be served is not tried again at each piece of news.
            self.known.insert(index, index);
            if let Ok(theirs) = self.hand_over(&found, index) {
                self.known.insert(index, theirs);
            }
        }
        if self.has.ways {
            self.pass_on_routes(ways::by_gateway(&found.config.routes));
        }
        Some(())
    }

    /// Tells the sandbox which routes are others than the last time.
    fn pass_on_routes(&mut self, routes: Vec<RouteConfig>) {
        let Some(before) = self.routes.replace(routes) else { return };
        let (added, removed) = ways::changes(&before, self.routes.as_deref().unwrap_or_default());
        // With an interface that is gone its routes went.
        let theirs = |r: &RouteConfig| Some(RouteConfig { link: *self.known.get(&r.link)?, ..r.clone() });
        let inside = |routes: Vec<&RouteConfig>| routes.into_iter().filter_map(theirs).collect::<Vec<_>>();
        let (added, removed) = (inside(added), inside(removed));
        if !added.is_empty() || !removed.is_empty() {
            // One that it can't take is none that it would ever have.
            let _ = self.ask(&Request::ChangeRoutes { added, removed }, &[]);
        }
    }

    /// Gives the sandbox an interface with what belongs to it; gives its number there.
    fn hand_over(&mut self, found: &Found, index: u32) -> Result<u32> {
        let doing = |what: &'static str| move || format!("connecting an interface: {what}");
        let socket = moat_host::packet::open(index)
            .map_err(|errno| io::Error::from_raw_os_error(errno.raw()))
            .context(doing("opening a packet socket"))?;
        let engine = if self.has.resolver { None } else { resolver().context(doing("looking for a resolver"))? };
        detach(&mut self.netlink, found.addresses.iter().filter(|a| a.header.index == index).cloned())
            .context(doing("taking an address off"))?;
        let config = &found.config;
        let config = NetworkConfig {
            links: config.links.iter().filter(|link| link.index == index).cloned().collect(),
            routes: config.routes.iter().filter(|route| route.link == index).cloned().collect(),
            neighbours: config.neighbours.iter().filter(|n| n.link == index).cloned().collect(),
        };
        if self.has.ways {
            ways::keep(&mut self.netlink, &config.routes, &found.config.routes);
        }
        let has_resolver = engine.is_some();
        let nameservers = if has_resolver { self.nameservers.clone() } else { Vec::new() };
        let request = Request::AddLink {
            config: Box::new(config),
            resolver: has_resolver.then_some(DOCKER_RESOLVER.ip()),
            nameservers,
        };
        let fds: Vec<OwnedFd> = std::iter::once(socket).chain(engine).collect();
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match self.ask(&request, &fds).context(doing("asking the sandbox"))? {
            Some(Response::LinkAdded(theirs)) => {
                self.has.resolver |= has_resolver;
                Ok(theirs)
            }
            Some(Response::Error(error)) => Err(error.into()),
            other => Err(Error::State(format!("the sandbox gave the answer {other:?}"))),
        }
    }

    /// Sends a request and waits for its answer, which a sandbox that was taken over may never give.
    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Option<Response>> {
        self.connection.send_request(request, fds)?;
        match wait(&[self.connection.as_fd()], Some(PATIENCE)) {
            Some(true) => self.connection.next_response(),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Waits until one of them can be read, or has ended; gives whether one can. `None` if that can't be waited for.
fn wait(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> Option<bool> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let limit = limit.map(Timespec::try_from).transpose().ok()?;
    match rustix::io::retry_on_intr(|| poll(&mut polled, limit.as_ref())) {
        Ok(ready) => Some(ready > 0),
        Err(_) => None,
    }
}
