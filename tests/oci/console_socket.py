"""A socket for the terminals of containers, as shims have them."""

import array
import os
import socket

from terminal_session import TerminalSession


class Console(TerminalSession):
    """A socket at which the runtime delivers one terminal."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.listener.settimeout(20)

    def receive(self):
        connection, _ = self.listener.accept()
        message, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(16))
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % 4])
        print("console:", len(descriptors), "descriptor", message.decode().rstrip("\0").startswith("/"))
        self.fd = descriptors[0]
        os.unlink(self.path)
