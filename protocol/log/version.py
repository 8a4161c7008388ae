"""Versions: the place of a message in STATUS as one growing number."""

from __future__ import annotations

from protocol.messages.codec import MAX_BATCH_MESSAGES


def version_of(sequence: int, index: int = 0) -> int:
    """Return stream sequence × 256 + index in the batch. It fits 2^53: STATUS begins at its creation time in ms."""
    if not 0 <= index < MAX_BATCH_MESSAGES:
        raise ValueError(f"index {index} is outside a batch of {MAX_BATCH_MESSAGES}")
    return sequence * MAX_BATCH_MESSAGES + index


def sequence_of(version: int) -> int:
    """Return the stream sequence of a version."""
    return version // MAX_BATCH_MESSAGES


def index_of(version: int) -> int:
    """Return the place in the batch of a version."""
    return version % MAX_BATCH_MESSAGES


def floor_version(sequence: int) -> int:
    """Return the greatest possible version of the messages up to and including `sequence`."""
    return sequence * MAX_BATCH_MESSAGES + MAX_BATCH_MESSAGES - 1
