//! Two containers in one sandbox, driven over the control connection, on each platform.
//!
//! It has no test harness: the sandbox is a re-execution of this very program, and its creator must have one thread.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use moat_control::spec::{
    Backing, CapabilitySpec, Lifetime, LogSpec, MountFlags, MountKind, MountSpec, Overlay, PlatformKind, ProcessSpec,
    RootSpec, SharedNamespaces,
};
use moat_control::{
    Connection, ContainerSpec, ContainerStatus, ControlError, ExecLifetime, ExecuteArgs, ExitStatus, Listener,
    ProcessInfo, Request, Response, SignalTarget,
};
use moat_runtime::adhoc::{self, blueprint};
use moat_runtime::sandbox::{InitFiles, SandboxFiles, Terminal};
use moat_runtime::{ChildSandbox, Config};
use rustix::mount::OpenTreeFlags;

/// The name of the control socket.
const SOCKET: &str = "control.sock";
const SIGKILL: i32 = 9;
const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;

fn main() {
    let mut argv = std::env::args_os();
    if argv.next().is_some_and(|name| name == moat_sentry::boot::PROCESS_NAME)
        && argv.next().is_some_and(|command| command == "boot")
    {
        moat_sentry::boot::main(argv);
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: containers that join a sandbox take root");
        return;
    }
    for platform in [PlatformKind::Systrap, PlatformKind::Ptrace] {
        let test = Test::start(platform);
        test.second_container();
        test.executed_processes();
        test.pausing();
        test.created_containers();
        test.looking();
        test.refusals();
        test.connections();
        test.no_leaks();
        test.end();
        console(platform);
        println!("{}: ok", platform.name());
    }
}

struct Test {
    sandbox: ChildSandbox,
    id: String,
    directory: PathBuf,
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

fn read_all(pipe: OwnedFd) -> String {
    let mut text = String::new();
    File::from(pipe).read_to_string(&mut text).unwrap();
    text
}

fn shell(script: &str) -> ProcessSpec {
    ProcessSpec {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".into()],
        cwd: "/".into(),
        capabilities: CapabilitySpec::full(),
        ..ProcessSpec::default()
    }
}

impl Test {
    fn start(platform: PlatformKind) -> Test {
        let config = Config { platform, ..Config::default() };
        let request = adhoc::Request {
            args: ["/bin/sh", "-c", "sleep 1000 & wait"].map(str::to_owned).to_vec(),
            env: Vec::new(),
            cwd: Some("/".into()),
            root: "/".into(),
            uid: 0,
            gid: 0,
            volumes: Vec::new(),
            terminal: false,
        };
        let stdio = InitFiles { stdio: [null(), null(), null()], preserved: Vec::new(), terminal: Terminal::Shared };
        let directory = std::env::temp_dir().join(format!("moat-containers-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        // Who is let in is up to the sandbox here, not to the directory.
        std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let _ = std::fs::remove_file(directory.join(SOCKET));
        let listener = Listener::bind(&directory, SOCKET).unwrap();
        std::fs::set_permissions(directory.join(SOCKET), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        let listener = Some((listener, directory.clone()));
        let files = SandboxFiles { stdio, listener, debug_log: None, panic_log: None, user_log: None };
        let sandbox = ChildSandbox::start(&config, blueprint(request).unwrap(), files, |_| Ok(())).unwrap();
        sandbox.start_root().unwrap();
        let id = sandbox.sandbox.id.clone();
        Test { sandbox, id, directory }
    }

    fn connection(&self) -> &Connection {
        self.sandbox.connection()
    }

    fn call(&self, request: Request) -> Response {
        self.call_with(request, &[])
    }

    fn call_with(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Response {
        self.connection().call(&request, fds).unwrap()
    }

    fn done(&self, request: Request) {
        let text = format!("{request:?}");
        assert_eq!(self.call(request), Response::Done, "{text}");
    }

    fn error(&self, request: Request) -> ControlError {
        match self.call(request) {
            Response::Error(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, id: &str) -> ContainerStatus {
        match self.call(Request::State(id.into())) {
            Response::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    fn processes(&self, id: &str) -> Vec<ProcessInfo> {
        match self.call(Request::Processes(id.into())) {
            Response::Processes(list) => list,
            other => panic!("{other:?}"),
        }
    }

    fn wait(&self, id: &str) -> ExitStatus {
        match self.call(Request::Wait(id.into())) {
            Response::Exited(status) => status,
            other => panic!("{other:?}"),
        }
    }

    fn create(&self, id: &str, process: ProcessSpec, stdout: &OwnedFd) -> Response {
        self.create_as(id, process, stdout, SharedNamespaces::default(), BTreeMap::new())
    }

    fn create_as(
        &self,
        id: &str,
        process: ProcessSpec,
        stdout: &OwnedFd,
        shared: SharedNamespaces,
        sysctls: BTreeMap<String, String>,
    ) -> Response {
        let root = rustix::mount::open_tree(
            rustix::fs::CWD,
            "/",
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
        )
        .unwrap();
        let mount =
            |destination: &str, kind| MountSpec { destination: destination.into(), kind, flags: MountFlags::default() };
        let spec = ContainerSpec {
            id: id.into(),
            hostname: format!("host-{id}"),
            domainname: "(none)".into(),
            shared,
            process,
            stdio: [0, 1, 2],
            preserved: Vec::new(),
            root: RootSpec { backing: Backing::Directory(3), readonly: false, overlay: Overlay::Memory },
            mounts: vec![
                mount("/proc", MountKind::Proc),
                mount("/dev", MountKind::Dev),
                mount("/tmp", MountKind::Tmpfs(Default::default())),
            ],
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            sysctls,
        };
        let null = null();
        let fds = [null.as_fd(), stdout.as_fd(), null.as_fd(), root.as_fd()];
        self.call_with(Request::CreateContainer(Box::new(spec)), &fds)
    }

    /// Runs `script` in a new container to its end; gives what it said and how it ended.
    fn run(&self, id: &str, script: &str) -> (String, ExitStatus) {
        let (read, write) = pipe();
        assert_eq!(self.create(id, shell(script), &write), Response::Done);
        drop(write);
        self.done(Request::StartContainer(id.into()));
        let text = read_all(read);
        let status = self.wait(id);
        self.done(Request::DestroyContainer(id.into()));
        (text, status)
    }

    fn start_idle(&self, id: &str, script: &str) {
        assert_eq!(self.create(id, shell(script), &null()), Response::Done);
        self.done(Request::StartContainer(id.into()));
    }

    fn execute_on(&self, connection: &Connection, id: &str, process: ProcessSpec, stdout: &OwnedFd) -> Response {
        let args = ExecuteArgs {
            id: id.into(),
            process,
            stdio: [0, 1, 2],
            preserved: vec![3],
            lifetime: ExecLifetime::Connection,
        };
        let null = null();
        connection
            .call(&Request::Execute(Box::new(args)), &[null.as_fd(), stdout.as_fd(), stdout.as_fd(), null.as_fd()])
            .unwrap()
    }

    /// Runs `script` in a running container.
    fn execute(&self, id: &str, script: &str) -> (String, ExitStatus) {
        let (read, write) = pipe();
        let pid = match self.execute_on(self.connection(), id, shell(script), &write) {
            Response::Started(pid) => pid,
            other => panic!("{other:?}"),
        };
        drop(write);
        let text = read_all(read);
        match self.call(Request::WaitProcess { id: id.into(), pid }) {
            Response::Exited(status) => (text, status),
            other => panic!("{other:?}"),
        }
    }

    fn second_container(&self) {
        let script =
            "echo $$; cat /proc/sys/kernel/hostname; uname -n; echo x > /tmp/new; ls /proc | grep -c '^[0-9]'; exit 7";
        let (text, status) = self.run("one", script);
        assert_eq!(text, "1\nhost-one\nhost-one\n3\n");
        assert_eq!(status, ExitStatus::Exited(7));
        assert_eq!(self.error(Request::State("one".into())), ControlError::NoContainer("one".into()));
        // Another sees nothing of it.
        assert_eq!(self.run("one", "ls /tmp; kill -9 $$; kill -11 $$; sh -c 'kill -15 $PPID'; echo here").0, "here\n");
        // Its namespaces are the root container's if it says so.
        let (read, write) = pipe();
        let shared = SharedNamespaces { pid: true, ipc: true, uts: true };
        let script = "uname -n; test $$ -gt 1 && echo shared; sleep 1000 & echo";
        assert_eq!(self.create_as("pod", shell(script), &write, shared, BTreeMap::new()), Response::Done);
        drop(write);
        self.done(Request::StartContainer("pod".into()));
        let status = self.wait("pod");
        assert_eq!(status, ExitStatus::Exited(0));
        // The process that it left behind held the pipe, and ended with it.
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(read_all(read), format!("{host}\nshared\n\n"));
        self.done(Request::DestroyContainer("pod".into()));
    }

    fn executed_processes(&self) {
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

    fn pausing(&self) {
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
        assert_eq!(cpu(self), before, "a paused container runs");
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

    fn created_containers(&self) {
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

    fn looking(&self) {
        self.start_idle("look", "echo; exec sleep 1000");
        let deadline = Instant::now() + Duration::from_secs(10);
        let list = loop {
            let list = self.processes("look");
            if list[0].command == "sleep" || Instant::now() > deadline {
                break list;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let [init] = &list[..] else { panic!("{list:?}") };
        assert_eq!((init.pid, init.parent_pid, init.uid, init.threads), (1, 0, 0, 1));
        assert_eq!(init.args, ["sleep", "1000"]);
        // The host sees the guest's name.
        let host = self.host_pid(init.sandbox_pid);
        let comm = |host: i32| std::fs::read_to_string(format!("/proc/{host}/comm")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        while comm(host) != "sleep\n" && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(comm(host), "sleep\n");
        let Response::Event(event) = self.call(Request::Event("look".into())) else { panic!() };
        assert_eq!((event.processes, event.threads), (1, 1));
        assert!(event.resident_bytes > 0 && event.cpu_time_ns > 0, "{event:?}");
        let Response::Text(stacks) = self.call(Request::Stacks) else { panic!() };
        assert!(stacks.contains("sleep") && stacks.contains("clock_nanosleep("), "{stacks}");
        assert!(stacks.contains("moat-sandbox"), "{stacks}");
        // A log can be opened, filled and closed at any time.
        let quiet = LogSpec::default();
        assert!(matches!(self.error(Request::ChangeLogging(quiet.clone())), ControlError::Invalid(_)));
        let log = tempfile();
        let loud = LogSpec { strace: true, strace_syscalls: vec!["write".into()], ..quiet.clone() };
        assert_eq!(self.call_with(Request::ChangeLogging(loud), &[log.as_fd()]), Response::Done);
        self.execute("look", "echo logged; exec true");
        self.done(Request::ChangeLogging(quiet));
        self.execute("look", "echo silent");
        let mut text = String::new();
        std::io::Seek::rewind(&mut &log).unwrap();
        (&log).read_to_string(&mut text).unwrap();
        assert!(text.contains("write(1, ") && !text.contains("execve"), "{text}");
        assert_eq!(text.matches("write(1, ").count(), 1, "{text}");
        self.done(Request::DestroyContainer("look".into()));
    }

    /// The host's number of a process of the sandbox's pid namespace.
    fn host_pid(&self, sandbox_pid: i32) -> i32 {
        let wanted = sandbox_pid.to_string();
        let ns = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let Some(pid) = entry.ok().and_then(|e| e.file_name().to_str()?.parse::<i32>().ok()) else { continue };
            let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            let numbers = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or_default();
            if numbers.split_whitespace().last() == Some(wanted.as_str()) && ns(pid) == ns(self.sandbox.pid()) {
                return pid;
            }
        }
        panic!("no process {wanted} in the sandbox");
    }

    fn refusals(&self) {
        for (request, name) in [(Request::Checkpoint, "checkpoint"), (Request::Restore, "restore")] {
            assert_eq!(self.error(request), ControlError::Unsupported(name.into()));
        }
        let target = SignalTarget::Process(77);
        let nobody = self.error(Request::Signal { id: self.id.clone(), signal: SIGTERM, target });
        assert!(matches!(nobody, ControlError::Errno { errno: 3, .. }), "{nobody:?}");
        let bad = Request::Signal { id: self.id.clone(), signal: 65, target: SignalTarget::Init };
        assert!(matches!(self.error(bad), ControlError::Errno { errno: 22, .. }));
        assert!(matches!(self.error(Request::DestroyContainer(self.id.clone())), ControlError::State { .. }));
        assert!(matches!(self.error(Request::StartRoot), ControlError::State { .. }));
        let none = Request::WaitProcess { id: self.id.clone(), pid: 1 };
        assert!(matches!(self.error(none), ControlError::Errno { errno: 3, .. }));
    }

    /// Containers that are gone leave nothing in the sandbox process.
    fn no_leaks(&self) {
        let open = || std::fs::read_dir(format!("/proc/{}/fd", self.sandbox.pid())).unwrap().count();
        let guests = || {
            let tasks = format!("/proc/{0}/task/{0}/children", self.sandbox.pid());
            std::fs::read_to_string(tasks).unwrap_or_default().split_whitespace().count()
        };
        let settled = |count: &dyn Fn() -> usize, most: usize| {
            let deadline = Instant::now() + Duration::from_secs(5);
            while count() > most && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            count()
        };
        self.run("leak", "cat /etc/passwd > /tmp/x; ls -R /etc > /dev/null");
        std::thread::sleep(Duration::from_millis(300));
        let (files, processes) = (open(), guests());
        for _ in 0..8 {
            self.run("leak", "cat /etc/passwd > /tmp/x; ls -R /etc > /dev/null; sleep 1000 &");
        }
        let after = (settled(&open, files), settled(&guests, processes));
        assert!(after.0 <= files && after.1 <= processes, "{after:?} after {:?}", (files, processes));
    }

    fn end(self) {
        let Test { sandbox, id, directory } = self;
        let signal = Request::Signal { id: id.clone(), signal: SIGTERM, target: SignalTarget::Init };
        sandbox.connection().post(&Request::Wait(id)).unwrap();
        sandbox.connection().post(&signal).unwrap();
        assert_eq!(sandbox.connection().next_response().unwrap(), Some(Response::Done));
        let ended = Response::Exited(ExitStatus::Signaled { signal: 15, core_dumped: false });
        assert_eq!(sandbox.connection().next_response().unwrap(), Some(ended));
        let pid = rustix::process::Pid::from_raw(sandbox.pid()).unwrap();
        let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(128 + SIGTERM));
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// Others than the creator, nonsense, and too many.
    fn connections(&self) {
        let open = || Connection::open(&self.directory, SOCKET).unwrap();
        let state = Request::State(self.id.clone());
        let works = |connection: &Connection| {
            let answer = connection.call(&state, &[]).unwrap();
            assert_eq!(answer, Response::State(ContainerStatus::Running));
        };
        let first = open();
        works(&first);
        // Another user is cut off without an answer. Credentials belong to a thread.
        let stranger = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let id = rustix::process::Uid::from_raw(1000);
                rustix::thread::set_thread_res_uid(id, id, id).unwrap();
                open().call(&state, &[]).is_ok()
            });
            thread.join().unwrap()
        });
        assert!(!stranger, "another user was let in");
        // Nonsense ends the connection it came by, and no other.
        for nonsense in [&b"{]"[..], br#"{"version":2,"body":{"Inline":"Nonesuch"}}"#, br#"{"version":1}"#] {
            let connection = open();
            rustix::io::write(connection.as_fd(), nonsense).unwrap();
            let answer = connection.next_response().unwrap();
            assert!(matches!(&answer, Some(Response::Error(ControlError::Invalid(_)))), "{answer:?}");
            assert_eq!(connection.next_response().unwrap_or(None), None);
        }
        works(&first);
        // Beyond the limit a connection waits until another is closed; requests that wait hold nobody up.
        first.post(&Request::Wait(self.id.clone())).unwrap();
        let mut many: Vec<_> = (0..254).map(|_| open()).collect();
        let last = many.last().unwrap();
        works(last);
        let late = open();
        late.post(&state).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let readable = |timeout_ms: i64| {
            let mut fds = [rustix::event::PollFd::new(&late, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: timeout_ms * 1_000_000 };
            rustix::event::poll(&mut fds, Some(&limit)).unwrap() > 0
        };
        assert!(!readable(0), "more connections than allowed are served");
        many.pop();
        assert!(readable(900), "a place that became free is not used");
        drop((many, first));
        works(&late);
        // A process of an attached exec ends with its connection.
        let connection = open();
        let Response::Started(pid) = self.execute_on(&connection, &self.id, shell("sleep 1000"), &null()) else {
            panic!()
        };
        drop(connection);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.processes(&self.id).iter().any(|p| p.pid == pid) {
            assert!(Instant::now() < deadline, "a process outlived its connection");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn tempfile() -> File {
    let name = CString::new("moat-test-log").unwrap();
    rustix::fs::memfd_create(name.as_c_str(), rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
}

/// A detached sandbox has a terminal of its own, whose signals are the guest's.
fn console(platform: PlatformKind) {
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let slave = || rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    let script = "trap 'stty size' WINCH; trap 'echo int' INT; trap 'exit 9' HUP; tty; sh -c 'sleep 1000' & echo ready; \
                  while :; do sleep 0.01; done";
    let request = adhoc::Request {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: Vec::new(),
        cwd: Some("/".into()),
        root: "/".into(),
        uid: 0,
        gid: 0,
        volumes: Vec::new(),
        terminal: true,
    };
    let mut blueprint = blueprint(request).unwrap();
    blueprint.lifetime = Lifetime::Detached;
    blueprint.process.console_size = Some((30, 90));
    let stdio = InitFiles { stdio: [slave(), slave(), slave()], preserved: Vec::new(), terminal: Terminal::Own };
    let files = SandboxFiles { stdio, listener: None, debug_log: None, panic_log: None, user_log: None };
    let config = Config { platform, ..Config::default() };
    let sandbox = ChildSandbox::start(&config, blueprint, files, |_| Ok(())).unwrap();
    sandbox.start_root().unwrap();
    let expect = |wanted: &str| {
        let mut text = String::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !text.contains(wanted) && Instant::now() < deadline {
            let mut fds = [rustix::event::PollFd::new(&master, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            if rustix::event::poll(&mut fds, Some(&limit)).unwrap() > 0 {
                let mut bytes = [0; 1024];
                let n = rustix::io::read(&master, &mut bytes).unwrap();
                text += &String::from_utf8_lossy(&bytes[..n]);
            }
        }
        assert!(text.contains(wanted), "{wanted:?} in {text:?}");
    };
    expect("/dev/pts/0\r\nready\r\n");
    let mut size = rustix::termios::tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (30, 90));
    size.ws_row = 33;
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    expect("33 90\r\n");
    rustix::io::write(&master, b"\x03").unwrap();
    expect("int\r\n");
    let pid = rustix::process::Pid::from_raw(sandbox.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    expect("int\r\n");
    drop(master);
    let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(9));
}
