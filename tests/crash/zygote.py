"""Forks processes that run one segment alone, from one that has imported everything."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import NoReturn

LAUNCHER = Path(__file__).with_name("launcher.py")


def command(path: str) -> tuple[str, ...]:
    """Return the command line that has the zygote at ``path`` fork a process."""
    return (sys.executable, "-I", "-S", str(LAUNCHER), path)


def listen(path: str) -> socket.socket:
    """Return a socket for a zygote to serve on."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    return listening


def serve(listening: socket.socket) -> NoReturn:
    """Fork for whoever connects, until killed."""
    # Nobody waits for the keepers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        conn, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep(conn)
        conn.close()


def _keep(conn: socket.socket) -> NoReturn:
    """Fork one, hand signals on to it, and tell how it ended; it dies with its launcher."""
    line, ancillary, _, _ = conn.recvmsg(1 << 20, socket.CMSG_SPACE(3 * 4))
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    while not line.endswith(b"\n"):
        line += conn.recv(1 << 20)
    pid = os.fork()
    if pid == 0:
        conn.close()
        _be_alone(json.loads(line), list(fds))
    for fd in fds:
        os.close(fd)
    ended = os.pidfd_open(pid)
    while ended not in select.select([ended, conn.fileno()], [], [])[0]:
        told = conn.recv(1)
        os.kill(pid, signal.SIGTERM if told else signal.SIGKILL)
        if not told:
            break
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        conn.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _be_alone(environment: dict[str, str], fds: list[int]) -> NoReturn:
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    from perdure.cli import alone_child

    # How long an orphan has is not the point of any test that forks one.
    alone_child._STOP_SECONDS = 0.5
    try:
        code = alone_child.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    threading._shutdown()  # type: ignore[attr-defined]
    sys.stderr.flush()
    os._exit(code)
