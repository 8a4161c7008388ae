"""What a process tells about itself besides its actors: version, clock, file descriptors, memory, where it listens."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time

import psutil

from actors.runtime import VERSION
from actors.runtime.config.settings import listening
from protocol.messages.inspection import ProcessFacts
from protocol.times import format_time


def process_facts() -> ProcessFacts:
    """About this process, now. Takes a millisecond or two with ten thousand sockets."""
    process = psutil.Process()
    return ProcessFacts(
        host=socket.gethostname(),
        pid=process.pid,
        version=VERSION,
        fds_open=process.num_fds(),
        fd_limit=fd_limit(),
        memory_bytes=process.memory_info().rss,
        listens=dict(listening),
        time=format_time(time.time()),  # last: what comes before takes time
    )


async def answer_process_facts(_request: bytes) -> bytes:
    """For `Presence`: every actor of a process answers the same."""
    return process_facts().model_dump_json(by_alias=True).encode()


def fd_limit() -> int:
    """How many files and sockets this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else os.sysconf("SC_OPEN_MAX")


def raise_fd_limit() -> None:
    """Allow this process as many files and sockets as it may allow itself: a connection is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some kernels have no limit, but a highest value
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
