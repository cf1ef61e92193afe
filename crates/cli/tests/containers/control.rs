//! What the control connection tells, refuses and leaves behind.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::Duration;

use moat_control::protocol::{AfterCheckpoint, PageCompression};
use moat_control::spec::LogSpec;
use moat_control::{Connection, ContainerStatus, ControlError, ExitStatus, Request, Response, SignalTarget};

use crate::sandbox::{Test, null, shell, tempfile};
use crate::{SIGTERM, SOCKET};

impl Test {
    pub(crate) fn looking(&self) {
        self.start_idle("look", "echo; exec sleep 1000");
        let mut looks = 0..5000;
        let list = loop {
            let list = self.processes("look");
            if list[0].command == "sleep" || looks.next().is_none() {
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
        let mut looks = 0..5000;
        while comm(host) != "sleep\n" && looks.next().is_some() {
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
    pub(crate) fn host_pid(&self, sandbox_pid: i32) -> i32 {
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

    pub(crate) fn refusals(&self) {
        let (then, compression) = (AfterCheckpoint::GoOn, PageCompression::None);
        let without_files = self.error(Request::Checkpoint { id: self.id.clone(), then, compression });
        assert!(matches!(without_files, ControlError::Invalid(_)), "{without_files:?}");
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
    pub(crate) fn no_leaks(&self) {
        let open = || std::fs::read_dir(format!("/proc/{}/fd", self.sandbox.pid())).unwrap().count();
        let guests = || {
            let tasks = format!("/proc/{0}/task/{0}/children", self.sandbox.pid());
            std::fs::read_to_string(tasks).unwrap_or_default().split_whitespace().count()
        };
        let settled = |count: &dyn Fn() -> usize, most: usize| {
            let mut looks = 0..500;
            while count() > most && looks.next().is_some() {
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

    pub(crate) fn end(self) {
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
    pub(crate) fn connections(&self) {
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
        let mut looks = 0..2000;
        while self.processes(&self.id).iter().any(|p| p.pid == pid) {
            assert!(looks.next().is_some(), "a process outlived its connection");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
