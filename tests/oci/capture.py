"""Captures the packets of a container that is sent datagrams meanwhile: capture.py ADDRESS COMMAND... --pcap FILE ID.

Fails unless question and answer are in the file, on eth0, each with its direction.
"""

import socket
import struct
import subprocess
import sys

PORT = 7001


def blocks(data):
    while data:
        kind, length = struct.unpack("<II", data[:8])
        assert length >= 12 and struct.unpack("<I", data[length - 4 : length]) == (length,), (kind, length)
        yield kind, data[8 : length - 4]
        data = data[length:]


def options(data):
    while len(data) >= 4:
        code, length = struct.unpack("<HH", data[:4])
        yield code, data[4 : 4 + length]
        data = data[4 + (length + 3) // 4 * 4 :]


def datagrams(path):
    """(link, direction, source port, destination port, payload) of each UDP datagram over IPv4."""
    with open(path, "rb") as file:
        data = file.read()
    links = []
    for kind, body in blocks(data):
        if kind == 1:
            assert struct.unpack("<H", body[:2]) == (1,), body
            links.append(dict(options(body[8:]))[2].decode())
        elif kind == 6:
            link, _, _, length, original = struct.unpack("<IIIII", body[:20])
            assert length == original
            frame = body[20 : 20 + length]
            direction = struct.unpack("<I", dict(options(body[20 + (length + 3) // 4 * 4 :]))[2])[0]
            if frame[12:14] == b"\x08\x00" and frame[14] == 0x45 and frame[23] == 17:
                source, target, size = struct.unpack("!HHH", frame[34:40])
                yield links[link], direction, source, target, frame[42 : 34 + size]


def main():
    address, *command = sys.argv[1:]
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.settimeout(0.05)
    capture = subprocess.Popen(command)
    answers = 0
    while capture.poll() is None:
        asker.sendto(b"seen from outside", (address, PORT))
        try:
            answers += asker.recv(100) == b"echo seen from outside"
        except TimeoutError:
            pass
    assert capture.returncode == 0, capture.returncode
    port = asker.getsockname()[1]
    seen = set(datagrams(command[command.index("--pcap") + 1]))
    wanted = {("eth0", 1, port, PORT, b"seen from outside"), ("eth0", 2, PORT, port, b"echo seen from outside")}
    assert wanted <= seen, (answers, seen)


main()
