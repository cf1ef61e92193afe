//! A virtual machine, by qemu, with an agent in it that runs scripts.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::images::Images;

/// How long a machine may take to come up: it has no acceleration, and the host may be busy.
const BOOT: Duration = Duration::from_secs(180);

/// The end of an answer, before the status and a line feed.
const END: &[u8] = b"\n#end ";

/// It ends with this value.
pub(super) struct Machine {
    qemu: Child,
    agent: UnixStream,
}

/// Its processors.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Processors {
    pub(super) count: u32,
    /// What the model that has everything goes without, as qemu names it, each with a comma before it.
    pub(super) without: String,
}

impl Machine {
    /// Boots a release's kernel; the root disk stays as it is.
    pub(super) fn boot(images: &Images, suite: &str, disk: &Path, processors: &Processors) -> Result<Machine> {
        let (socket, console) = (images.scratch("agent.sock"), images.scratch("console.log"));
        for file in [&socket, &console] {
            let _ = fs::remove_file(file);
        }
        let mut command = Command::new("qemu-system-x86_64");
        // Emulated: a /dev/kvm that is there may be one in a virtual machine which does not get far. With five levels of page
        // tables old kernels do not boot.
        command.args(["-accel", "tcg,thread=multi", "-m", "2048", "-snapshot"]);
        command.args(["-cpu", &format!("max,la57=off{}", processors.without), "-smp", &processors.count.to_string()]);
        command.args(["-display", "none", "-monitor", "none", "-nic", "none"]);
        command.arg("-kernel").arg(images.kernel(suite, "vmlinuz"));
        command.arg("-initrd").arg(images.kernel(suite, "initrd.gz"));
        command.args(["-append", "console=ttyS0 mitigations=off systemd.show_status=0"]);
        for image in [&images.root(), disk] {
            command.args(["-drive", &format!("file={},format=raw,if=virtio", image.display())]);
        }
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=agent"]);
        command.args(["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", socket.display())]);
        command.args(["-serial", &format!("file:{}", console.display())]);
        let qemu = command.stdin(Stdio::null()).spawn().context("qemu-system-x86_64")?;
        let mut machine = Machine::connect(qemu, &socket)?;
        machine.wait_until_ready().with_context(|| format!("see {}", console.display()))?;
        machine.unpack()?;
        Ok(machine)
    }

    /// Reboots it; what was written to the root disk is kept.
    pub(super) fn reboot(&mut self) -> Result<()> {
        // The answer may be lost.
        self.agent.write_all(b"17\nsystemctl reboot\n")?;
        self.wait_until_ready()?;
        self.unpack()
    }

    fn unpack(&mut self) -> Result<()> {
        let unpack = "set -e; mkdir -p /run/disk; tar -C /run/disk -xf /dev/vdb
            install /run/disk/moat /usr/local/bin/; install /run/disk/library.sh /usr/local/lib/";
        match self.run(unpack, BOOT)? {
            Some((0, _)) => Ok(()),
            other => bail!("the program can't be put into the machine: {other:?}"),
        }
    }

    fn connect(mut qemu: Child, socket: &Path) -> Result<Machine> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match UnixStream::connect(socket) {
                Ok(agent) => return Ok(Machine { qemu, agent }),
                Err(_) if Instant::now() < deadline && qemu.try_wait()?.is_none() => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => {
                    // It may have ended by itself.
                    let _ = qemu.kill();
                    let _ = qemu.wait();
                    return Err(error).context("no answer from qemu");
                }
            }
        }
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let said = self.read_until(Instant::now() + BOOT, |bytes| bytes.ends_with(b"ready\n"))?;
        said.map(drop).with_context(|| format!("the machine is not up after {} s", BOOT.as_secs()))
    }

    /// Runs a script with bash as root; gives its status and output, or nothing if it takes longer.
    pub(super) fn run(&mut self, script: &str, timeout: Duration) -> Result<Option<(i32, String)>> {
        self.agent.write_all(format!("{}\n{script}", script.len()).as_bytes())?;
        let is_end = |bytes: &[u8]| bytes.ends_with(b"\n") && find_end(bytes).is_some();
        let Some(mut bytes) = self.read_until(Instant::now() + timeout, is_end)? else { return Ok(None) };
        let end = find_end(&bytes).context("an end was seen")?;
        let status = String::from_utf8_lossy(bytes.get(end + END.len()..).unwrap_or_default()).trim().parse()?;
        bytes.truncate(end);
        Ok(Some((status, String::from_utf8_lossy(&bytes).into_owned())))
    }

    fn read_until(&mut self, deadline: Instant, is_end: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            if is_end(&bytes) {
                return Ok(Some(bytes));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.agent.set_read_timeout(Some(left))?;
            match self.agent.read(&mut chunk) {
                Ok(0) => bail!("the machine has ended"),
                Ok(n) => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Where the last line that ends an answer begins.
fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(END.len()).rposition(|window| window == END)
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It has nothing to save.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
