//! Two containers in one sandbox, driven over the control connection, on each platform.
//!
//! It has no test harness: the sandbox is a re-execution of this very program, and its creator must have one thread.

mod console;
mod control;
mod life;
mod sandbox;

use moat_control::spec::PlatformKind;

use sandbox::Test;

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
        test.followers_end_first();
        test.pausing();
        test.created_containers();
        test.looking();
        test.refusals();
        test.connections();
        test.no_leaks();
        test.end();
        console::console(platform);
        println!("{}: ok", platform.name());
    }
}
