"""Permission errors of NATS, passed to the code that waits for an answer.

NATS reports a missing permission on the connection, beside the request, and the request itself gets no answer.
`Refusals` finds out which request is meant, so that it fails at once instead of after its timeout.
"""

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

OnRefusal = Callable[[NotPermitted], None]


class Refusals:
    """Permission errors of one connection: `name` is the connection's, `user` and `inbox_prefix` are its login's.

    `lasting` is set when the user may not even subscribe to its own replies: every request fails then.

    Example::

        with refusals.watch("status.plan.P001", future.set_exception):
            await future
    """

    def __init__(self, name: str, user: str | None, inbox_prefix: str) -> None:
        self._name = name
        self._user = user
        self._inbox = f"{inbox_prefix.lower()}."
        self._waiting: dict[str, list[tuple[str, OnRefusal]]] = {}
        self._watching_all: list[OnRefusal] = []
        self._logged: set[str] = set()
        self.lasting: NotPermitted | None = None

    @contextmanager
    def watch(self, subject: str, on_refusal: OnRefusal) -> Iterator[None]:
        """Call `on_refusal` when a publish to `subject` is refused within the context."""
        waiting = self._waiting.setdefault(subject.lower(), [])
        waiting.append((subject, on_refusal))
        try:
            yield
        finally:
            waiting.remove((subject, on_refusal))
            if not waiting:
                self._waiting.pop(subject.lower(), None)

    @contextmanager
    def watch_all(self, on_refusal: OnRefusal) -> Iterator[None]:
        """Call `on_refusal` for every permission error within the context."""
        self._watching_all.append(on_refusal)
        try:
            yield
        finally:
            self._watching_all.remove(on_refusal)

    def forget(self) -> None:
        """Forget `lasting`, for a new connection: the permissions may have changed."""
        self.lasting = None
        self._logged.clear()

    def report(self, error: Exception) -> str | None:
        """Pass an error of the connection to those who wait, if it is a permission error.

        Returns the subject in lower case when a publish was refused, else `None`.
        """
        match = _VIOLATION.search(str(error))
        if match is None:
            return None
        verb, subject = match[1].lower(), match[2].lower()
        refusal = self.refusal(verb, subject)
        callbacks = list(self._watching_all)
        if verb == "publish":
            waiting = self._waiting.get(subject, [])
            if waiting:
                refusal = self.refusal(verb, waiting[0][0])  # with the subject as it was written
            callbacks += [on_refusal for _, on_refusal in waiting]
        elif subject.startswith(self._inbox):
            self.lasting = refusal
            callbacks += [on_refusal for waiting in self._waiting.values() for _, on_refusal in waiting]
        if str(refusal) not in self._logged:
            self._logged.add(str(refusal))
            log.error("%s: %s", self._name, refusal)
        for on_refusal in callbacks:
            on_refusal(refusal)
        return subject if verb == "publish" else None

    def refusal(self, verb: str, subject: str) -> NotPermitted:
        """Return the error that says which user may not do what, and where permissions are configured."""
        user = f"user {str(self._user)!r}" if self._user else "this user"
        return NotPermitted(
            f"NATS does not let {user} {_VERBS[verb]} {subject}: see nats/permissions.conf, and nats.user for its name",
            verb,
            subject,
        )
