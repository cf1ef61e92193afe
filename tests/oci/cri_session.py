"""What a kubelet does with pods and containers: cri_session.py RUNTIME [count]. Prints what has to be the same with every runtime."""

import json
import os
import socket
import subprocess
import sys
import time

import cri
import stream

runtime = sys.argv[1]
client = cri.Client("/run/w/cri.sock")
IMAGE = {"image": "docker.io/library/deb:1"}
RUNNING, EXITED = 1, 2
POD_NAMESPACES = {"network": 0, "pid": 1, "ipc": 0}


def pod(name, **more):
    linux = {"security_context": {"namespace_options": POD_NAMESPACES}, **more.pop("linux", {})}
    config = {
        "metadata": {"name": name, "uid": "u-" + name, "namespace": "default"}, "hostname": name,
        "log_directory": os.path.join(os.getcwd(), "logs", name), "linux": linux, **more,
    }
    os.makedirs(config["log_directory"], exist_ok=True)
    return client.RunPodSandbox(config=config, runtime_handler=runtime)["pod_sandbox_id"], config


def container(of, name, *command, start=True, security=None, resources=None, **more):
    id, config = of
    security = {"namespace_options": POD_NAMESPACES, **(security or {})}
    made = {
        "metadata": {"name": name}, "image": IMAGE, "command": list(command), "log_path": name + ".log",
        "linux": {"resources": resources or {}, "security_context": security}, **more,
    }
    made = client.CreateContainer(pod_sandbox_id=id, config=made, sandbox_config=config)["container_id"]
    if start:
        client.StartContainer(container_id=made)
    return made


def status(id):
    return client.ContainerStatus(container_id=id)["status"]


def eventually(what, check):
    for _ in range(300):
        if check():
            return
        time.sleep(0.1)
    print("never came true:", what)


def ended(name, id):
    eventually(name + " ends", lambda: status(id)["state"] == EXITED)
    seen = status(id)
    print(name, "ended:", seen["exit_code"], seen["reason"])


def execute(id, *command):
    """A command inside, by ExecSync: what it said, and its status if it is not 0."""
    seen = client.ExecSync(container_id=id, cmd=list(command), timeout=30)
    said = (seen["stdout"] + seen["stderr"]).decode().strip()
    return said if seen["exit_code"] == 0 else f"{said} [{seen['exit_code']}]"


def log(of, name):
    """The lines of a container's log: stream and text, without the time."""
    with open(os.path.join(of[1]["log_directory"], name + ".log"), encoding="utf-8") as file:
        return [(line.split(" ", 3)[1], line.split(" ", 3)[3].rstrip("\n")) for line in file]


def stats(id):
    return client.ContainerStats(container_id=id)["stats"]


def cpu(seen):
    return seen["cpu"]["usage_core_nano_seconds"]["value"] / 1e9


def ask(port, at="127.0.0.1"):
    """What a server of that port says."""
    with socket.create_connection((at, port), timeout=20) as connection:
        return connection.makefile().read().strip()


def section(title):
    print("==", title)


section("a pod and its containers")
web = pod("web", port_mappings=[{"container_port": 80, "host_port": 8087}], linux={
    "cgroup_parent": "/kube/web", "sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
    "resources": {"memory_limit_in_bytes": 512 << 20, "cpu_period": 100000, "cpu_quota": 200000}})
SERVER = """use Socket; $| = 1; socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
bind(S, sockaddr_in(80, INADDR_ANY)) or die; listen(S, 5); print "listening\\n"; print STDERR "said on stderr\\n";
while (accept(C, S)) { syswrite(C, "served by " . `hostname`); close(C); }"""
server = container(web, "server", "perl", "-e", SERVER, resources={
    "memory_limit_in_bytes": 256 << 20, "cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 512})
box = container(web, "box", "sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done", envs=[{"key": "A", "value": "1"}],
                working_dir="/usr", resources={"memory_limit_in_bytes": 64 << 20, "memory_swap_limit_in_bytes": 64 << 20})
print(execute(box, "sh", "-c", "hostname; pwd; echo $A; id -u; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"))
eventually("the server listens", lambda: ("stdout", "listening") in log(web, "server"))
print(sorted(log(web, "server")))
print("the same network:", execute(box, "perl", "-e", 'use IO::Socket; print IO::Socket::INET->new("127.0.0.1:80")->getline'))
address = client.PodSandboxStatus(pod_sandbox_id=web[0])["status"]["network"]["ip"]
print("by its address:", ask(80, address))
print("own processes:", execute(box, "sh", "-c", "cat /proc/1/comm; test ! -e /tmp/server && echo own files"))

section("ports that are mapped")
print(ask(8087))

section("ExecSync")
print(execute(box, "sh", "-c", "echo out; echo err >&2; exit 3"))
print(execute(box, "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x | wc -c"))
try:
    client.ExecSync(container_id=box, cmd=["/no/such/command"], timeout=10)
    print("it was found")
except cri.grpc.RpcError as error:
    print("no such command:", "no such file" in error.details())
try:
    client.ExecSync(container_id=box, cmd=["sleep", "1000"], timeout=1)
    print("it ended")
except cri.grpc.RpcError as error:
    print("out of time:", error.code())
eventually("its process is gone", lambda: "no" in execute(box, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q 'slee[p] 1000' || echo no"))

section("Exec, with streams")
def run(cmd, tty=0):
    answer = client.Exec(container_id=box, cmd=cmd, tty=tty, stdin=1, stdout=1, stderr=1 - tty)
    return stream.Stream(answer["url"])
live = run(["sh", "-c", "read a; echo got $a; echo err >&2; exit 4"])
live.send(stream.STDIN, b"input\n")
said = live.rest()
print(said.get(stream.STDOUT), said.get(stream.STDERR), json.loads(said[stream.ERROR])["details"]["causes"][0]["message"])
def terminal():
    """A shell on a terminal. containerd now and then gives nothing of one to its client, whatever the runtime."""
    for patience in (2, 4, 8, 16, 32):
        live = run(["sh"], tty=1)
        live.socket.settimeout(patience)
        try:
            live.until(stream.STDOUT, b"# ")
            live.socket.settimeout(30)
            return live
        except TimeoutError:
            live.socket.close()
    raise TimeoutError("no terminal says anything")
live = terminal()
live.send(stream.RESIZE, b'{"Width": 91, "Height": 17}')
live.send(stream.STDIN, b"tty; until [ \"$(stty size)\" = '17 91' ]; do sleep 0.1; done; echo 'the size is' set\n")
live.until(stream.STDOUT, b"/dev/pts/\\d+\r\n")
live.until(stream.STDOUT, b"the size is set")
live.send(stream.STDIN, b"cat\n")
live.send(stream.STDIN, b"mew\n")
# Echoed by the terminal and by cat, which so is in the foreground.
live.until(stream.STDOUT, b"mew\r\n(.|\n)*mew\r\n")
live.send(stream.STDIN, b"\x03")
live.until(stream.STDOUT, b"\r\n# ")
live.send(stream.STDIN, b"exit 5\n")
print(json.loads(live.rest()[stream.ERROR])["details"]["causes"][0]["message"])

section("a limit of memory is the container's")
big = 'my $x = "x" x (256 << 20); print length($x), "\\n"; sleep 1'
limited = container(web, "limited", "perl", "-e", big,
                    resources={"memory_limit_in_bytes": 64 << 20, "memory_swap_limit_in_bytes": 64 << 20})
# The event of it comes by a way of its own.
eventually("it is said to be out of memory", lambda: status(limited)["reason"] == "OOMKilled")
ended("limited", limited)
print("others run:", [status(id)["state"] for id in (server, box)])
print("in exec:", execute(box, "perl", "-e", big))
print("still there:", status(box)["state"])

section("stats")
spent = cpu(stats(box))
execute(box, "perl", "-e", "$end = (times)[0] + 1; 1 while (times)[0] < $end")
eventually("its CPU time is seen", lambda: 0.9 < cpu(stats(box)) - spent < 10)
print("memory:", 0 < stats(box)["memory"]["working_set_bytes"]["value"] <= 64 << 20)
listed = {seen["attributes"]["metadata"]["name"] for seen in client.ListContainerStats()["stats"]}
print(sorted(listed & {"server", "box"}))
try:
    seen = client.PodSandboxStats(pod_sandbox_id=web[0])["stats"]["linux"]
    print("pod:", cpu(seen) > 0.9, seen["memory"]["working_set_bytes"]["value"] > 0, len(seen["containers"]))
    if "count" in sys.argv[2:]:
        # Each container sees its own, and the shell that looks; the box's shell has a sleep now and then.
        inside = sum(int(execute(id, "sh", "-c", "set -- /proc/[0-9]*; echo $#")) - 1 for id in (server, box))
        outside = client.PodSandboxStats(pod_sandbox_id=web[0])["stats"]["linux"]["process"]["process_count"]["value"]
        print("processes:", abs(outside - inside) <= 1 or (outside, inside))
except cri.grpc.RpcError as error:
    print("pod:", error.code())

section("updates are seen inside")
client.UpdateContainerResources(container_id=server, linux={
    "cpu_period": 100000, "cpu_quota": 100000, "memory_limit_in_bytes": 128 << 20, "memory_swap_limit_in_bytes": 128 << 20,
    "cpuset_cpus": "0"})
print(execute(server, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null ||"
              " cut -d ' ' -f 1 /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max; nproc"))
if runtime == "runc":
    # It shows the host's.
    print("MemTotal is that of the limit")
else:
    kilobytes = int(execute(server, "sh", "-c", "grep MemTotal /proc/meminfo").split()[1])
    print("MemTotal is that of the limit" if kilobytes <= 128 << 10 else f"MemTotal: {kilobytes}")

section("logs")
container(web, "chatty", "sh", "-c", "seq 3; printf end; echo e >&2; head -c 40000 /dev/zero | tr '\\0' x")
eventually("all is logged", lambda: sum(len(text) for _, text in log(web, "chatty")) == 3 + 3 + 1 + 40000)
print([text for name, text in log(web, "chatty") if name == "stderr"], max(len(text) for _, text in log(web, "chatty")))
os.rename(os.path.join(web[1]["log_directory"], "server.log"), "old.log")
client.ReopenContainerLog(container_id=server)
print("a new log:", log(web, "server"))

section("a privileged pod")
root = pod("root", linux={"cgroup_parent": "/kube/root", "security_context": {"namespace_options": POD_NAMESPACES, "privileged": 1}})
mighty = container(root, "mighty", "sleep", "1000", security={"privileged": 1})
print(execute(mighty, "sh", "-c", "grep CapEff /proc/self/status; mount -t tmpfs x /mnt && echo mounted; umount /mnt;"
              " test -c /dev/null && test -r /proc/cmdline && echo devices; mknod /tmp/n c 1 3 && echo > /tmp/n && echo made"))
plain = container(root, "plain", "sleep", "1000", security={"no_new_privs": 1, "run_as_user": {"value": 65534}, "readonly_rootfs": 1,
                  "capabilities": {"drop_capabilities": ["ALL"]}, "masked_paths": ["/proc/cmdline"], "readonly_paths": ["/proc/sys"]})
print(execute(plain, "sh", "-c", "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /x; cat /proc/cmdline | wc -c; mount -t tmpfs x /mnt"))

section("volumes and devices")
os.makedirs("volume")
mounted = container(root, "mounted", "sh", "-c", "echo inside > /v/made; echo no > /r/made; sleep 1000",
                    mounts=[{"container_path": "/v", "host_path": os.path.abspath("volume")},
                            {"container_path": "/r", "host_path": os.path.abspath("volume"), "readonly": 1}],
                    devices=[{"container_path": "/dev/fuzz", "host_path": "/dev/zero", "permissions": "rwm"}])
eventually("it wrote", lambda: os.path.exists("volume/made") and os.path.getsize("volume/made") and log(root, "mounted"))
print(open("volume/made", encoding="utf-8").read().strip(), log(root, "mounted"))
print(execute(mounted, "sh", "-c", "head -c 3 /dev/fuzz | wc -c"))

section("the end")
client.StopContainer(container_id=box, timeout=10)
ended("box", box)
client.StopContainer(container_id=server, timeout=0)
ended("server", server)
client.RemoveContainer(container_id=box)
again = container(web, "box", "sh", "-c", "exit 7")
ended("again", again)
for id, _ in (web, root):
    client.StopPodSandbox(pod_sandbox_id=id)
print("mounted", status(mounted)["state"] == EXITED)
for id, _ in (web, root):
    client.RemovePodSandbox(pod_sandbox_id=id)
print(client.ListContainers()["containers"], client.ListPodSandbox()["items"])
try:
    ask(8087)
    print("somebody answers")
except ConnectionRefusedError:
    print("nobody answers")
rules = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True, check=True).stdout
print("rules:", [line for line in rules.splitlines() if "CNI-DN-" in line or "10.88.7." in line and "u-web" in line])
print("addresses:", [name for name in os.listdir("/var/lib/cni/networks/pods") if name[0].isdigit()])
