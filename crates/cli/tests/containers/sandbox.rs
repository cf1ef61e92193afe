//! [`Test`]: a sandbox, and its control connection as calls that must succeed.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use moat_control::spec::{
    Backing, CapabilitySpec, HostNodes, MountFlags, MountKind, MountSpec, Overlay, OverlayLimits, PlatformKind,
    ProcessSpec, RootSpec, SharedNamespaces, SharesSpec, Sharing,
};
use moat_control::{
    Connection, ContainerSpec, ContainerStatus, ControlError, ExecLifetime, ExecuteArgs, ExitStatus, Listener,
    ProcessInfo, Request, Response,
};
use moat_runtime::adhoc::{self, blueprint};
use moat_runtime::sandbox::{InitFiles, SandboxFiles, Terminal};
use moat_runtime::{ChildSandbox, Config};
use rustix::mount::OpenTreeFlags;

use crate::SOCKET;

/// A sandbox whose root container runs, and what to ask of it.
pub(crate) struct Test {
    pub(crate) sandbox: ChildSandbox,
    pub(crate) id: String,
    /// Where its control socket is.
    pub(crate) directory: PathBuf,
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

pub(crate) fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

pub(crate) fn read_all(pipe: OwnedFd) -> String {
    let mut text = String::new();
    File::from(pipe).read_to_string(&mut text).unwrap();
    text
}

pub(crate) fn shell(script: &str) -> ProcessSpec {
    ProcessSpec {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".into()],
        cwd: "/".into(),
        capabilities: CapabilitySpec::full(),
        ..ProcessSpec::default()
    }
}

impl Test {
    pub(crate) fn start(platform: PlatformKind) -> Test {
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
            host_nodes: HostNodes::default(),
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
        let sandbox = ChildSandbox::start(&config, blueprint(request).unwrap(), files, None, |_| Ok(())).unwrap();
        sandbox.start_root().unwrap();
        let id = sandbox.sandbox.id.clone();
        Test { sandbox, id, directory }
    }

    pub(crate) fn connection(&self) -> &Connection {
        self.sandbox.connection()
    }

    pub(crate) fn another_connection(&self) -> Connection {
        Connection::open(&self.directory, SOCKET).unwrap()
    }

    pub(crate) fn call(&self, request: Request) -> Response {
        self.call_with(request, &[])
    }

    pub(crate) fn call_with(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Response {
        self.connection().call(&request, fds).unwrap()
    }

    pub(crate) fn done(&self, request: Request) {
        let text = format!("{request:?}");
        assert_eq!(self.call(request), Response::Done, "{text}");
    }

    pub(crate) fn error(&self, request: Request) -> ControlError {
        match self.call(request) {
            Response::Error(error) => error,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn state(&self, id: &str) -> ContainerStatus {
        match self.call(Request::State(id.into())) {
            Response::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn processes(&self, id: &str) -> Vec<ProcessInfo> {
        match self.call(Request::Processes(id.into())) {
            Response::Processes(list) => list,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn wait(&self, id: &str) -> ExitStatus {
        match self.call(Request::Wait(id.into())) {
            Response::Exited(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create(&self, id: &str, process: ProcessSpec, stdout: &OwnedFd) -> Response {
        self.create_as(id, process, stdout, SharedNamespaces::default(), BTreeMap::new())
    }

    pub(crate) fn create_as(
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
            name: String::new(),
            hostname: format!("host-{id}"),
            domainname: "(none)".into(),
            shared,
            process,
            host_nodes: HostNodes::default(),
            stdio: [0, 1, 2],
            preserved: Vec::new(),
            node_maker: None,
            root: RootSpec {
                backing: Backing::Directory(3),
                readonly: false,
                overlay: Overlay::Memory(OverlayLimits::default()),
                sharing: Sharing::Exclusive,
            },
            mounts: vec![
                mount("/proc", MountKind::Proc),
                mount("/dev", MountKind::Dev),
                mount("/dev/mqueue", MountKind::Mqueue),
                mount("/tmp", MountKind::Tmpfs(Default::default())),
            ],
            devices: Vec::new(),
            device_rules: Vec::new(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            sysctls,
            seccomp: None,
            shares: SharesSpec::default(),
            restore: None,
        };
        let null = null();
        let fds = [null.as_fd(), stdout.as_fd(), null.as_fd(), root.as_fd()];
        self.call_with(Request::CreateContainer(Box::new(spec)), &fds)
    }

    /// Runs `script` in a new container to its end; gives what it said and how it ended.
    pub(crate) fn run(&self, id: &str, script: &str) -> (String, ExitStatus) {
        let (read, write) = pipe();
        assert_eq!(self.create(id, shell(script), &write), Response::Done);
        drop(write);
        self.done(Request::StartContainer(id.into()));
        let text = read_all(read);
        let status = self.wait(id);
        self.done(Request::DestroyContainer(id.into()));
        (text, status)
    }

    pub(crate) fn start_idle(&self, id: &str, script: &str) {
        assert_eq!(self.create(id, shell(script), &null()), Response::Done);
        self.done(Request::StartContainer(id.into()));
    }

    pub(crate) fn execute_on(
        &self,
        connection: &Connection,
        id: &str,
        process: ProcessSpec,
        stdout: &OwnedFd,
    ) -> Response {
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
    pub(crate) fn execute(&self, id: &str, script: &str) -> (String, ExitStatus) {
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
}

/// A file without a name.
pub(crate) fn tempfile() -> File {
    let name = CString::new("moat-test-log").unwrap();
    rustix::fs::memfd_create(name.as_c_str(), rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
}
