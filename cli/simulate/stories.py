"""The stories of simulated examinees: lists of actions, drawn from a seed."""

from __future__ import annotations

import random
from enum import StrEnum


class Action(StrEnum):
    """An action of an examinee; the value is the text in the live view."""

    CLOSES = "closes and reopens the page"
    BREAKS = "loses the TCP connection"
    HANGS = "hangs and answers no ping"
    MOVES = "connects from another place"
    SYNCS = "uploads a picture by phone"
    NEVER_SYNCS = "never uploads a picture"
    IS_TOLD = "is sent a message by a proctor and confirms it"
    STAYS_AWAY = "stays away past the limit"


SHORT_ACTIONS = (Action.CLOSES, Action.BREAKS, Action.MOVES, Action.SYNCS, Action.IS_TOLD)


def deal_stories(examinees: int, rng: random.Random) -> list[tuple[Action, ...]]:
    """Draw a list of actions for each examinee. Any eight examinees in a row begin with eight different actions."""
    deck: list[Action] = []
    while len(deck) < examinees:
        deck += rng.sample(list(Action), len(Action))
    return [(first, *rng.sample(SHORT_ACTIONS, rng.randint(0, 2))) for first in deck[:examinees]]
