//! Containers come, are joined, pause and go.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use moat_control::spec::{CapabilitySpec, ProcessSpec, SharedNamespaces};
use moat_control::{ContainerStatus, ControlError, ExitStatus, Request, Response, SignalTarget};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sandbox::{Test, null, pipe, read_all, shell};
use crate::{SIGKILL, SIGTERM, SIGUSR1};

impl Test {
    pub(crate) fn second_container(&self) {
        let script =
            "echo $$; cat /proc/sys/kernel/hostname; uname -n; echo x > /tmp/new; ls /proc | grep -c '^[0-9]'; exit 7";
        let (text, status) = self.run("one", script);
        assert_eq!(text, "1\nhost-one\nhost-one\n3\n");
        assert_eq!(status, ExitStatus::Exited(7));
        assert_eq!(self.error(Request::State("one".into())), ControlError::NoContainer("one".into()));
        // Another sees nothing of it.
        assert_eq!(self.run("one", "ls /tmp; kill -9 $$; kill -11 $$; sh -c 'kill -15 $PPID'; echo here").0, "here\n");
        // Its namespaces are the root container's if it says so.
        let root = self.id.clone();
        assert_eq!(self.execute(&root, "touch /dev/mqueue/queue").1, ExitStatus::Exited(0));
        assert_eq!(self.run("one", "ls /dev/mqueue").0, "");
        let (read, write) = pipe();
        let shared = SharedNamespaces { pid: true, ipc: true, uts: true };
        let script = "uname -n; test $$ -gt 1 && echo shared; ls /dev/mqueue; sleep 1000 & echo";
        assert_eq!(self.create_as("pod", shell(script), &write, shared, BTreeMap::new()), Response::Done);
        drop(write);
        self.done(Request::StartContainer("pod".into()));
        let status = self.wait("pod");
        assert_eq!(status, ExitStatus::Exited(0));
        // The process that it left behind held the pipe, and ended with it.
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(read_all(read), format!("{host}\nshared\nqueue\n\n"));
        self.done(Request::DestroyContainer("pod".into()));
    }

    pub(crate) fn executed_processes(&self) {
        self.start_idle("exec", "cd /tmp; echo 1 > one; sleep 1000 & wait");
        let text = self.execute("exec", "while ! cat /tmp/one 2>/dev/null; do sleep 0.01; done; grep PPid /proc/self/status /proc/$$/status; readlink /proc/$$/ns/pid > /tmp/a; readlink /proc/1/ns/pid > /tmp/b; cmp /tmp/a /tmp/b; ls /proc/$$/fd; exit 5");
        assert_eq!(text.1, ExitStatus::Exited(5));
        let lines: Vec<&str> = text.0.lines().collect();
        assert_eq!((lines[0], lines[2].ends_with("PPid:\t0"), &lines[3..]), ("1", true, &["0", "1", "2", "3"][..]));
        // Nothing stays of it, not even a zombie.
        assert!(self.processes("exec").iter().all(|p| p.parent_pid != 0 || p.pid == 1), "{:?}", self.processes("exec"));
        // What does not exist, and what is no program.
        let spec = |command: &str| ProcessSpec { args: vec![command.into()], ..shell("") };
        let command_error = |command: &str, errno| {
            let error = ControlError::Command { command: command.into(), errno };
            let got = self.execute_on(self.connection(), "exec", spec(command), &null());
            assert_eq!(got, Response::Error(error));
        };
        command_error("nonesuch", 2);
        command_error("/nonesuch/x", 2);
        command_error("/etc/passwd", 13);
        let elsewhere = ProcessSpec { cwd: "/nonesuch".into(), ..shell("") };
        let got = self.execute_on(self.connection(), "exec", elsewhere, &null());
        assert!(matches!(&got, Response::Error(ControlError::Errno { errno: 2, .. })), "{got:?}");
        // One as another user, with a signal while somebody waits on the same connection.
        let user = ProcessSpec {
            uid: 1000,
            gid: 1001,
            umask: Some(0o27),
            ..shell("trap 'id -u; id -g; umask; exit 3' USR1; echo; while :; do sleep 0.01; done")
        };
        let user = ProcessSpec { capabilities: CapabilitySpec::default(), ..user };
        let (read, write) = pipe();
        let Response::Started(pid) = self.execute_on(self.connection(), "exec", user, &write) else { panic!() };
        drop(write);
        self.connection().post(&Request::WaitProcess { id: "exec".into(), pid }).unwrap();
        rustix::io::read(&read, &mut [0u8; 1]).unwrap();
        let signal = Request::Signal { id: "exec".into(), signal: SIGUSR1, target: SignalTarget::Process(pid) };
        self.connection().post(&signal).unwrap();
        assert_eq!(self.connection().next_response().unwrap(), Some(Response::Done));
        assert_eq!(self.connection().next_response().unwrap(), Some(Response::Exited(ExitStatus::Exited(3))));
        assert_eq!(read_all(read), "1000\n1001\n0027\n");
        // Destroying the container takes all of it along.
        self.done(Request::DestroyContainer("exec".into()));
    }

    /// A container's end is told after those who stand for its executed processes have ended and been reaped.
    pub(crate) fn followers_end_first(&self) {
        self.start_idle("followed", "sleep 1000");
        let Response::Started(pid) = self.execute_on(self.connection(), "followed", shell("sleep 1000"), &null())
        else {
            panic!()
        };
        let mut follower = Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&follower), PidfdFlags::empty()).unwrap();
        let wait = Request::WaitProcess { id: "followed".into(), pid };
        self.connection().send_request(&wait, &[pidfd.as_fd()]).unwrap();
        // Answered in the order of requests: the one before has been taken then.
        self.connection().send_request(&Request::State("followed".into()), &[]).unwrap();
        assert_eq!(self.connection().next_response().unwrap(), Some(Response::State(ContainerStatus::Running)));
        let other = self.another_connection();
        other.send_request(&Request::Wait("followed".into()), &[]).unwrap();
        let is_told = || {
            let mut fds = [PollFd::new(&other, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).unwrap() > 0
        };
        let start = Instant::now();
        let kill = Request::Signal { id: "followed".into(), signal: SIGKILL, target: SignalTarget::Init };
        self.connection().send_request(&kill, &[]).unwrap();
        let mut answers = [self.connection().next_response().unwrap(), self.connection().next_response().unwrap()];
        answers.sort_by_key(|answer| answer != &Some(Response::Done));
        let killed = ExitStatus::Signaled { signal: 9, core_dumped: false };
        assert_eq!(answers, [Some(Response::Done), Some(Response::Exited(killed))]);
        let while_alive = is_told();
        follower.kill().unwrap();
        let while_zombie = is_told();
        // It does not wait for ever: on a machine that stands still these looks come too late to tell.
        if start.elapsed() < Duration::from_millis(900) {
            assert!(!while_alive && !while_zombie, "{while_alive} {while_zombie}");
        }
        follower.wait().unwrap();
        assert_eq!(other.next_response().unwrap(), Some(Response::Exited(killed)));
        self.done(Request::DestroyContainer("followed".into()));
    }

    pub(crate) fn pausing(&self) {
        let (read, write) = pipe();
        assert_eq!(
            self.create("busy", shell("sh -c 'while :; do :; done' & while :; do echo x; sleep 0.001; done"), &write),
            Response::Done
        );
        drop(write);
        self.done(Request::StartContainer("busy".into()));
        let mut byte = [0u8; 1];
        rustix::io::read(&read, &mut byte).unwrap();
        self.done(Request::Pause("busy".into()));
        assert_eq!(self.state("busy"), ContainerStatus::Paused);
        assert!(matches!(self.error(Request::Pause("busy".into())), ControlError::State { .. }));
        let cpu = |t: &Test| t.processes("busy").iter().map(|p| p.cpu_time_ns).sum::<u64>();
        rustix::io::ioctl_fionbio(&read, true).unwrap();
        while rustix::io::read(&read, &mut [0u8; 4096]).is_ok() {}
        let before = cpu(self);
        std::thread::sleep(Duration::from_millis(100));
        // The loop would use all of that time. What stopped is charged for the rest of its stop, by the host and by the sentry.
        let used = Duration::from_nanos(cpu(self) - before);
        assert!(used < Duration::from_millis(10), "a paused container runs: {used:?}");
        assert!(rustix::io::read(&read, &mut byte).is_err(), "a paused container writes");
        // The other container goes on.
        assert_eq!(self.state(&self.id), ContainerStatus::Running);
        self.done(Request::Resume("busy".into()));
        assert_eq!(self.state("busy"), ContainerStatus::Running);
        assert!(matches!(self.error(Request::Resume("busy".into())), ControlError::State { .. }));
        rustix::io::ioctl_fionbio(&read, false).unwrap();
        assert_eq!(rustix::io::read(&read, &mut byte).unwrap(), 1);
        // A kill gets through.
        self.done(Request::Pause("busy".into()));
        self.done(Request::Signal { id: "busy".into(), signal: SIGKILL, target: SignalTarget::All });
        assert_eq!(self.state("busy"), ContainerStatus::Stopped);
        assert_eq!(self.wait("busy"), ExitStatus::Signaled { signal: 9, core_dumped: false });
        self.done(Request::DestroyContainer("busy".into()));
    }

    pub(crate) fn created_containers(&self) {
        assert_eq!(self.create("made", shell("exit 4"), &null()), Response::Done);
        assert_eq!(self.state("made"), ContainerStatus::Created);
        assert_eq!(self.processes("made").len(), 1);
        let again = self.create("made", shell("exit 4"), &null());
        assert_eq!(again, Response::Error(ControlError::Exists("made".into())));
        self.done(Request::Signal { id: "made".into(), signal: SIGTERM, target: SignalTarget::Init });
        assert_eq!(self.wait("made"), ExitStatus::Signaled { signal: 15, core_dumped: false });
        assert!(matches!(self.error(Request::StartContainer("made".into())), ControlError::State { .. }));
        self.done(Request::DestroyContainer("made".into()));
        // One that was never started.
        assert_eq!(self.create("made", shell("exit 4"), &null()), Response::Done);
        self.done(Request::DestroyContainer("made".into()));
        // One that can't be.
        let nothing = ProcessSpec { args: vec!["nonesuch".into()], ..shell("") };
        let error = ControlError::Command { command: "nonesuch".into(), errno: 2 };
        assert_eq!(self.create("made", nothing, &null()), Response::Error(error));
        let sysctls = BTreeMap::from([("kernel.nonesuch".to_owned(), "1".to_owned())]);
        let refused = self.create_as("made", shell(""), &null(), SharedNamespaces::default(), sysctls);
        assert!(matches!(&refused, Response::Error(e) if e.to_string().contains("kernel.nonesuch")), "{refused:?}");
    }
}
