"""The streams of CRI's Exec and Attach by WebSocket, in Kubernetes' protocol v4.channel.k8s.io."""

import base64
import os
import re
import socket
import struct

# The first byte of each message says whose it is.
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)


class Stream:
    """A connection to the address that a call has given."""

    def __init__(self, url):
        self.kept = {}
        host, port, path = re.match(r"http://([^:/]+):(\d+)(/.*)", url).groups()
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Origin: http://{host}\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n").encode())
        self.file = self.socket.makefile("rb")
        answer = self.file.readline()
        assert b"101" in answer, answer
        while self.file.readline() != b"\r\n":
            pass

    def send(self, channel, data):
        content = bytes([channel]) + data
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))
        length = bytes([128 | len(content)]) if len(content) < 126 else b"\xfe" + struct.pack(">H", len(content))
        self.socket.sendall(b"\x82" + length + mask + masked)

    def receive(self):
        """The next message: its channel and bytes; None at the end."""
        while True:
            head = self.file.read(2)
            if len(head) < 2 or head[0] & 15 == 8:
                return None
            length = head[1] & 127
            if length == 126:
                length, = struct.unpack(">H", self.file.read(2))
            elif length == 127:
                length, = struct.unpack(">Q", self.file.read(8))
            content = self.file.read(length)
            # Empty ones announce the channels.
            if head[0] & 15 in (1, 2) and len(content) > 1:
                return content[0], content[1:]

    def until(self, channel, pattern):
        """Reads a channel until what it said matches; what comes after that is the next call's."""
        said = self.kept.pop(channel, b"")
        while not (match := re.search(pattern, said)):
            message = self.receive()
            assert message, (pattern, said)
            if message[0] == channel:
                said += message[1]
        self.kept[channel] = said[match.end():]
        return said

    def rest(self):
        """What all channels say until the command has ended, which is said last."""
        said = self.kept
        while ERROR not in said and (message := self.receive()):
            said[message[0]] = said.get(message[0], b"") + message[1]
        self.socket.close()
        return said
