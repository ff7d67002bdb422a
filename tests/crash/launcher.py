"""Stands where an interpreter would that takes seconds to start: has a zygote fork one instead.

Its environment and its standard streams go to the process that is forked, SIGTERM too; it ends
as that does. Started with ``python -I -S launcher.py <socket>``.
"""

import array
import json
import os
import signal
import socket
import sys


def main() -> None:
    """Launch, and wait for the end."""
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(sys.argv[1])
    fds = array.array("i", [0, 1, 2]).tobytes()
    line = json.dumps(dict(os.environ)).encode() + b"\n"
    sent = conn.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    conn.sendall(line[sent:])
    signal.signal(signal.SIGTERM, lambda *_: conn.send(b"T"))
    for fd in (0, 1, 2):
        os.close(fd)
    code = int(conn.recv(16) or b"99")
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
