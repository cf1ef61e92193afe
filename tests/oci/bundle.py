"""Makes an OCI bundle over the test root: bundle.py DIRECTORY PATCH ARGUMENT...

PATCH is merged into the configuration (RFC 7396), ARGUMENT... is the container's command.
"""

import json
import os
import sys

# Those of Docker's default.
CAPABILITIES = ["CAP_" + name for name in (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE").split()]


def mount(destination, kind, *options):
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


def configuration(name, arguments):
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": arguments,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"],
            "cwd": "/",
            "capabilities": {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": os.environ["ROOT"], "readonly": True},
        "hostname": "bundled",
        "mounts": [
            mount("/proc", "proc"),
            mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
            mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
        ],
        "linux": {
            "cgroupsPath": "/" + name,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        },
    }


def merge(target, patch):
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


directory, patch, *arguments = sys.argv[1:]
os.makedirs(directory, exist_ok=True)
config = merge(configuration(os.path.basename(directory), arguments), json.loads(patch))
with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as file:
    json.dump(config, file, indent=1)
