"""Facts of this process: version, clock, file descriptors, memory, and the addresses where it listens."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time

import psutil

from actors.runtime import VERSION
from actors.runtime.config.settings import listen_hosts
from protocol.messages.inspection import ProcessFacts
from protocol.times import format_time


def process_facts() -> ProcessFacts:
    """Measure this process. Takes one or two milliseconds with ten thousand sockets."""
    process = psutil.Process()
    return ProcessFacts(
        host=socket.gethostname(),
        pid=process.pid,
        version=VERSION,
        fds_open=process.num_fds(),
        fd_limit=fd_limit(),
        memory_bytes=process.memory_info().rss,
        listens=dict(listen_hosts),
        time=format_time(time.time()),  # last: the measurements above take time
    )


async def answer_process_facts(_request: bytes) -> bytes:
    """Answer a request for the facts of this process; every actor of it answers the same."""
    return process_facts().model_dump_json(by_alias=True).encode()


def fd_limit() -> int:
    """Return how many files and sockets this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else os.sysconf("SC_OPEN_MAX")


def raise_fd_limit() -> None:
    """Raise the limit of open files to the hard limit: each connection needs one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some kernels have no limit, but a highest value
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
