"""A client of the Kubernetes container runtime interface (CRI), version v1, with no more than the grpc package.

Messages are dictionaries by the names of api.proto; MESSAGES has the numbers and kinds of the fields that are used here.
"""

import grpc

# Kinds: a name of MESSAGES, else str, bytes, int (also of enumerations and booleans); in a list, repeated; `map`: of strings.
MESSAGES = {
    "Value": {"value": (1, "int")},
    "PodMetadata": {"name": (1, "str"), "uid": (2, "str"), "namespace": (3, "str"), "attempt": (4, "int")},
    "PortMapping": {"protocol": (1, "int"), "container_port": (2, "int"), "host_port": (3, "int"), "host_ip": (4, "str")},
    "NamespaceOption": {"network": (1, "int"), "pid": (2, "int"), "ipc": (3, "int"), "target_id": (4, "str")},
    "SandboxSecurity": {"namespace_options": (1, "NamespaceOption"), "privileged": (6, "int")},
    "Resources": {
        "cpu_period": (1, "int"), "cpu_quota": (2, "int"), "cpu_shares": (3, "int"), "memory_limit_in_bytes": (4, "int"),
        "oom_score_adj": (5, "int"), "cpuset_cpus": (6, "str"), "memory_swap_limit_in_bytes": (10, "int"),
    },
    "LinuxSandbox": {
        "cgroup_parent": (1, "str"), "security_context": (2, "SandboxSecurity"), "sysctls": (3, "map"),
        "resources": (5, "Resources"),
    },
    "PodConfig": {
        "metadata": (1, "PodMetadata"), "hostname": (2, "str"), "log_directory": (3, "str"),
        "port_mappings": (5, ["PortMapping"]), "labels": (6, "map"), "annotations": (7, "map"), "linux": (8, "LinuxSandbox"),
    },
    "Metadata": {"name": (1, "str"), "attempt": (2, "int")},
    "Image": {"image": (1, "str")},
    "KeyValue": {"key": (1, "str"), "value": (2, "str")},
    "Mount": {"container_path": (1, "str"), "host_path": (2, "str"), "readonly": (3, "int"), "propagation": (5, "int")},
    "Device": {"container_path": (1, "str"), "host_path": (2, "str"), "permissions": (3, "str")},
    "Capability": {"add_capabilities": (1, ["str"]), "drop_capabilities": (2, ["str"])},
    "Security": {
        "capabilities": (1, "Capability"), "privileged": (2, "int"), "namespace_options": (3, "NamespaceOption"),
        "run_as_user": (5, "Value"), "readonly_rootfs": (7, "int"), "no_new_privs": (11, "int"),
        "masked_paths": (13, ["str"]), "readonly_paths": (14, ["str"]),
    },
    "LinuxContainer": {"resources": (1, "Resources"), "security_context": (2, "Security")},
    "ContainerConfig": {
        "metadata": (1, "Metadata"), "image": (2, "Image"), "command": (3, ["str"]), "args": (4, ["str"]),
        "working_dir": (5, "str"), "envs": (6, ["KeyValue"]), "mounts": (7, ["Mount"]), "devices": (8, ["Device"]),
        "labels": (9, "map"), "annotations": (10, "map"), "log_path": (11, "str"), "stdin": (12, "int"),
        "stdin_once": (13, "int"), "tty": (14, "int"), "linux": (15, "LinuxContainer"),
    },
    "CpuUsage": {"timestamp": (1, "int"), "usage_core_nano_seconds": (2, "Value")},
    "MemoryUsage": {"timestamp": (1, "int"), "working_set_bytes": (2, "Value"), "usage_bytes": (4, "Value")},
    "ProcessUsage": {"timestamp": (1, "int"), "process_count": (2, "Value")},
    "FilesystemUsage": {"used_bytes": (3, "Value"), "inodes_used": (4, "Value")},
    "ContainerAttributes": {"id": (1, "str"), "metadata": (2, "Metadata")},
    "ContainerStats": {
        "attributes": (1, "ContainerAttributes"), "cpu": (2, "CpuUsage"), "memory": (3, "MemoryUsage"),
        "writable_layer": (4, "FilesystemUsage"),
    },
    "LinuxPodStats": {
        "cpu": (1, "CpuUsage"), "memory": (2, "MemoryUsage"), "process": (4, "ProcessUsage"), "containers": (5, ["ContainerStats"]),
    },
    "PodStats": {"linux": (2, "LinuxPodStats")},
    "PodNetwork": {"ip": (1, "str")},
    "PodStatus": {"id": (1, "str"), "metadata": (2, "PodMetadata"), "state": (3, "int"), "network": (5, "PodNetwork")},
    "ContainerStatus": {
        "id": (1, "str"), "metadata": (2, "Metadata"), "state": (3, "int"), "exit_code": (7, "int"), "reason": (10, "str"),
        "message": (11, "str"),
    },
    "Container": {"id": (1, "str"), "pod_sandbox_id": (2, "str"), "metadata": (3, "Metadata"), "state": (6, "int")},
    "PodSandbox": {"id": (1, "str"), "metadata": (2, "PodMetadata"), "state": (3, "int")},
}

# Calls: the fields of the request, those of the answer.
CALLS = {
    "RunPodSandbox": ({"config": (1, "PodConfig"), "runtime_handler": (2, "str")}, {"pod_sandbox_id": (1, "str")}),
    "StopPodSandbox": ({"pod_sandbox_id": (1, "str")}, {}),
    "RemovePodSandbox": ({"pod_sandbox_id": (1, "str")}, {}),
    "PodSandboxStatus": ({"pod_sandbox_id": (1, "str")}, {"status": (1, "PodStatus")}),
    "ListPodSandbox": ({}, {"items": (1, ["PodSandbox"])}),
    "CreateContainer": (
        {"pod_sandbox_id": (1, "str"), "config": (2, "ContainerConfig"), "sandbox_config": (3, "PodConfig")},
        {"container_id": (1, "str")},
    ),
    "StartContainer": ({"container_id": (1, "str")}, {}),
    "StopContainer": ({"container_id": (1, "str"), "timeout": (2, "int")}, {}),
    "RemoveContainer": ({"container_id": (1, "str")}, {}),
    "ListContainers": ({}, {"containers": (1, ["Container"])}),
    "ContainerStatus": ({"container_id": (1, "str")}, {"status": (1, "ContainerStatus")}),
    "UpdateContainerResources": ({"container_id": (1, "str"), "linux": (2, "Resources")}, {}),
    "ReopenContainerLog": ({"container_id": (1, "str")}, {}),
    "ExecSync": (
        {"container_id": (1, "str"), "cmd": (2, ["str"]), "timeout": (3, "int")},
        {"stdout": (1, "bytes"), "stderr": (2, "bytes"), "exit_code": (3, "int")},
    ),
    "Exec": (
        {"container_id": (1, "str"), "cmd": (2, ["str"]), "tty": (3, "int"), "stdin": (4, "int"), "stdout": (5, "int"), "stderr": (6, "int")},
        {"url": (1, "str")},
    ),
    "Attach": (
        {"container_id": (1, "str"), "stdin": (2, "int"), "tty": (3, "int"), "stdout": (4, "int"), "stderr": (5, "int")},
        {"url": (1, "str")},
    ),
    "ContainerStats": ({"container_id": (1, "str")}, {"stats": (1, "ContainerStats")}),
    "ListContainerStats": ({}, {"stats": (1, ["ContainerStats"])}),
    "PodSandboxStats": ({"pod_sandbox_id": (1, "str")}, {"stats": (1, "PodStats")}),
}


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def encode(fields, message):
    out = bytearray()
    for name, value in message.items():
        number, kind = fields[name]
        if kind == "map":
            kind, value = ["KeyValue"], [{"key": k, "value": v} for k, v in value.items()]
        repeated = isinstance(kind, list)
        for item in value if repeated else [value]:
            out += field(number, kind[0] if repeated else kind, item)
    return bytes(out)


def field(number, kind, value):
    if kind == "int":
        return varint(number << 3) + varint(int(value))
    content = value if kind == "bytes" else value.encode() if kind == "str" else encode(MESSAGES[kind], value)
    return varint(number << 3 | 2) + varint(len(content)) + content


def read_varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def decode(fields, data):
    """All fields that `fields` has, those that are not there with the default of their kind."""
    kinds = {number: (name, kind) for name, (number, kind) in fields.items()}
    message = {name: default(kind) for name, (_, kind) in fields.items()}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            value, at = read_varint(data, at)
        else:
            length, at = {1: (8, at), 5: (4, at)}.get(tag & 7) or read_varint(data, at)
            value, at = data[at:at + length], at + length
        if tag >> 3 not in kinds:
            continue
        name, kind = kinds[tag >> 3]
        if isinstance(kind, list):
            message[name].append(decoded(kind[0], value))
        else:
            message[name] = decoded(kind, value)
    return message


def default(kind):
    if isinstance(kind, list):
        return []
    return {"int": 0, "str": "", "bytes": b"", "map": {}}.get(kind, None)


def decoded(kind, value):
    if kind == "int":
        return value - (1 << 64) if value >> 63 else value
    return value if kind in ("bytes", "map") else value.decode() if kind == "str" else decode(MESSAGES[kind], value)


class Client:
    """Calls by their names: client.StartContainer(container_id=...)."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(f"unix://{address}")

    def __getattr__(self, name):
        request, answer = CALLS[name]
        call = self.channel.unary_unary(
            f"/runtime.v1.RuntimeService/{name}",
            request_serializer=lambda message: encode(request, message),
            response_deserializer=lambda data: decode(answer, data),
        )
        return lambda **message: call(message, timeout=60)
