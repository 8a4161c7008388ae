"""Versions: a message's place in STATUS as one growing number."""

from __future__ import annotations

from protocol.messages.codec import MAX_BATCH_MESSAGES


def version_of(sequence: int, index: int = 0) -> int:
    """Stream sequence × 256 + index in the batch. Fits 2^53: STATUS begins at its creation time in ms."""
    if not 0 <= index < MAX_BATCH_MESSAGES:
        raise ValueError(f"index {index} is outside a batch of {MAX_BATCH_MESSAGES}")
    return sequence * MAX_BATCH_MESSAGES + index


def sequence_of(version: int) -> int:
    """The stream sequence that a version came from."""
    return version // MAX_BATCH_MESSAGES


def index_of(version: int) -> int:
    """The place in the batch that a version came from."""
    return version % MAX_BATCH_MESSAGES


def floor_version(sequence: int) -> int:
    """The greatest version of all messages up to and including `sequence`."""
    return sequence * MAX_BATCH_MESSAGES + MAX_BATCH_MESSAGES - 1
