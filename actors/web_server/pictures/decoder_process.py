"""The process that decodes pictures, so that a hostile picture can use only the time and memory of this process.

`actors.web_server.pictures.decoders` starts it as `python -m actors.web_server.pictures.decoder_process`. It holds no
secrets and opens no files or connections. It reads jobs from stdin: a line of JSON (`Job`), then the picture's bytes.
It writes answers to stdout: a line of JSON (`DecodeResult`), then the JPEG's bytes if it is not kept as it is. It ends
when stdin ends. The kernel kills it (SIGXCPU) when a picture takes more processor time than the job allows; a picture
that takes more memory than allowed is refused.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import sys
from typing import BinaryIO, Literal, TypedDict

from PIL import Image

from actors.web_server.pictures.check import jpeg_of
from actors.web_server.pictures.limits import (
    CostlyPicture,
    DamagedPicture,
    NotAPicture,
    PictureLimits,
    PictureTooLarge,
    UnsupportedPicture,
)

FILES = 16
"""Open files: decoding needs none, but Python may still import modules."""


class Job(TypedDict):
    """A job. `size`: bytes that follow. `seconds`: whole seconds of processor time. The rest: `PictureLimits`."""

    size: int
    seconds: int
    pixels: int
    scans: int
    jpeg_bytes: int
    cost: int | None


class DecodeResult(TypedDict):
    """An answer. `size`: bytes of the JPEG that follow; 0 when the picture is kept as it is. `detail`: of a refusal."""

    outcome: Literal["KEEP", "CONVERTED", "NOT_A_PICTURE", "UNSUPPORTED", "DAMAGED", "TOO_LARGE", "COSTLY"]
    detail: str
    size: int


def main() -> None:
    """Process jobs until stdin ends. The argument: bytes of memory beyond what the process has at its start."""
    Image.preinit()
    confine(int(sys.argv[1]))
    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := jobs.readline():
        job: Job = json.loads(line)
        content = jobs.read(job["size"])
        if len(content) < job["size"]:
            return
        answer, jpeg = work(job, content)
        del content
        send(answers, answer, jpeg)


def confine(memory: int) -> None:
    """Set resource limits, and be the first process that the kernel kills when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("800")
    for limit, most in (
        (resource.RLIMIT_AS, address_space() + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, FILES),
    ):
        _, hard = resource.getrlimit(limit)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(limit, (most, most))
    with contextlib.suppress(OSError):
        os.nice(5)  # answers of the web server come before pictures


def address_space() -> int:
    """Return the bytes of memory that this process has mapped."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def work(job: Job, content: bytes) -> tuple[DecodeResult, bytes]:
    """Check one picture within the job's limits. Return the answer, and the JPEG to keep instead."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = math.ceil(used.ru_utime + used.ru_stime) + job["seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (until, hard))
    limits = PictureLimits(job["pixels"], job["scans"], job["jpeg_bytes"], job["cost"])
    try:
        jpeg = jpeg_of(content, limits)
    except CostlyPicture as error:
        return {"outcome": "COSTLY", "detail": str(error), "size": 0}, b""
    except PictureTooLarge as error:
        return {"outcome": "TOO_LARGE", "detail": str(error), "size": 0}, b""
    except DamagedPicture as error:
        return {"outcome": "DAMAGED", "detail": str(error), "size": 0}, b""
    except UnsupportedPicture as error:
        return {"outcome": "UNSUPPORTED", "detail": str(error), "size": 0}, b""
    except NotAPicture as error:
        return {"outcome": "NOT_A_PICTURE", "detail": str(error), "size": 0}, b""
    except MemoryError:  # outside of the decoder: copies of the picture
        return {"outcome": "TOO_LARGE", "detail": "it takes more memory to decode than is allowed", "size": 0}, b""
    if jpeg is content:
        return {"outcome": "KEEP", "detail": "", "size": 0}, b""
    return {"outcome": "CONVERTED", "detail": "", "size": len(jpeg)}, jpeg


def send(answers: BinaryIO, answer: DecodeResult, jpeg: bytes) -> None:
    """Write one answer and flush it."""
    answers.write(json.dumps(answer).encode() + b"\n" + jpeg)
    answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the web server has ended
        main()
