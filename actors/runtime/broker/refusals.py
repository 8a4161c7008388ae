"""What the broker refuses a user, told to whoever waits for it: NATS says so beside the answer, not instead of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from protocol.errors import NotPermitted

log = logging.getLogger("examwire.bus")

# nats-py writes it in lower case, subject included.
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)
_VERBS = {"publish": "publish to", "subscription": "subscribe to"}

Told = Callable[[NotPermitted], None]


class Refusals:
    """`user` and `inbox_prefix` are those of the connection `name`.

    `lasting` is set when the user may not even listen to its own replies: nothing that waits for one can succeed.
    """

    def __init__(self, name: str, user: str | None, inbox_prefix: str) -> None:
        self._name = name
        self._user = user
        self._inbox = f"{inbox_prefix.lower()}."
        self._waiting: dict[str, list[tuple[str, Told]]] = {}
        self._everything: list[Told] = []
        self._logged: set[str] = set()
        self.lasting: NotPermitted | None = None

    @contextmanager
    def told(self, subject: str, tell: Told) -> Iterator[None]:
        """Meanwhile, have `tell` called when a publish to `subject` is refused."""
        waiting = self._waiting.setdefault(subject.lower(), [])
        waiting.append((subject, tell))
        try:
            yield
        finally:
            waiting.remove((subject, tell))
            if not waiting:
                self._waiting.pop(subject.lower(), None)

    @contextmanager
    def all_told(self, tell: Told) -> Iterator[None]:
        """Meanwhile, have `tell` called for everything that is refused."""
        self._everything.append(tell)
        try:
            yield
        finally:
            self._everything.remove(tell)

    def forget(self) -> None:
        """A new connection: the broker may have been told otherwise."""
        self.lasting = None
        self._logged.clear()

    def heard(self, error: Exception) -> str | None:
        """An error of the connection; the lower-case subject when it is a refused publish. Tells who waits for it."""
        found = _VIOLATION.search(str(error))
        if found is None:
            return None
        verb, subject = found[1].lower(), found[2].lower()
        refusal = self.refusal(verb, subject)
        told = list(self._everything)
        if verb == "publish":
            waiting = self._waiting.get(subject, [])
            if waiting:
                refusal = self.refusal(verb, waiting[0][0])  # as it was written
            told += [tell for _, tell in waiting]
        elif subject.startswith(self._inbox):
            self.lasting = refusal
            told += [tell for waiting in self._waiting.values() for _, tell in waiting]
        if str(refusal) not in self._logged:
            self._logged.add(str(refusal))
            log.error("%s: %s", self._name, refusal)
        for tell in told:
            tell(refusal)
        return subject if verb == "publish" else None

    def refusal(self, verb: str, subject: str) -> NotPermitted:
        """The error that says who may not do what, and where that is laid down."""
        who = f"user {str(self._user)!r}" if self._user else "this user"
        return NotPermitted(
            f"NATS does not let {who} {_VERBS[verb]} {subject}: see nats/permissions.conf, and nats.user for who it is",
            verb,
            subject,
        )
