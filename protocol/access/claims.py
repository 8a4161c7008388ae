"""The claims of a token, and what they allow. `actors.runtime.config.tokens` checks signatures."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import Field

from protocol.access.scope import Scope
from protocol.errors import InvalidToken
from protocol.ids import Id
from protocol.messages.base import MAX_LABELS, LabelName, Name, Wire
from protocol.messages.frames import Role
from protocol.texts import clean_line

AUDIENCE = "examwire"
MAX_SCOPE_VALUES = 200

ScopeClaim = Annotated[
    dict[LabelName, Annotated[list[Name], Field(min_length=1, max_length=MAX_SCOPE_VALUES)]],
    Field(min_length=1, max_length=MAX_LABELS),
]

MAX_NAME = 100


def _read_name(name: object) -> str | None:
    """Return a name that can be shown on one line. Issuers write what they like into this claim; it refuses nobody."""
    return clean_line(name)[:MAX_NAME].strip() or None if isinstance(name, str) else None


class Claims(Wire):
    """The claims of a token. `sub`: the examineeId for the roles examinee and mobile, an id of theirs for the others.

    `name`: how people read who a proctor is, in any script.

    `scope` limits a proctor to examinees with these labels (`protocol.access.scope`).

    claims = Claims.read({"sub": "E001", "role": "examinee", "plan": "P001", "exp": 1795338000})
    claims.is_examinee("P001", "E001")  # True
    """

    sub: Id
    role: Role
    plan: Id
    name: Annotated[str | None, pydantic.BeforeValidator(_read_name)] = None
    aud: str | list[str] = AUDIENCE
    exp: int
    scope: ScopeClaim | None = None

    @classmethod
    def read(cls, payload: dict[str, Any]) -> Claims:
        """Return the claims of a verified payload. Raises `InvalidToken` with the claim's name."""
        try:
            return cls.model_validate(payload)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise InvalidToken(f"claim {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    @property
    def limits(self) -> Scope | None:
        """The examinees that a proctor is limited to; `None`: the whole plan."""
        return Scope.of(self.scope)

    def may_upload_for(self, plan_id: str, examinee_id: str) -> bool:
        """Return whether the bearer may upload this examinee's picture."""
        return self.role in ("mobile", "examinee") and self.plan == plan_id and self.sub == examinee_id

    def may_pair_phone(self, plan_id: str, examinee_id: str) -> bool:
        """Return whether the bearer may request a code that pairs a phone with this examinee."""
        return self.is_examinee(plan_id, examinee_id)

    def is_examinee(self, plan_id: str, examinee_id: str) -> bool:
        """Return whether the bearer is this examinee, not only a phone of theirs."""
        return self.role == "examinee" and self.plan == plan_id and self.sub == examinee_id

    def may_see_picture_of(self, plan_id: str, examinee_id: str) -> bool:
        """Return whether the bearer may see this examinee's picture: the examinee and the plan's proctors may.

        A proctor with `limits` may only if the examinee is within them.
        """
        return self.may_watch(plan_id) or self.is_examinee(plan_id, examinee_id)

    def may_watch(self, plan_id: str) -> bool:
        """Return whether the bearer may see a plan's examinees and pictures, within `limits` if there are any."""
        return self.role == "proctor" and self.plan == plan_id
