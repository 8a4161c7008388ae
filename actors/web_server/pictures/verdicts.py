"""What was found about pictures that were decoded before: one that is sent again is not decoded again."""

from __future__ import annotations

from collections import OrderedDict

from actors.web_server.pictures.check import NotAPicture, PictureTooLarge

MOST = 10_000
"""Pictures that are remembered; about 200 bytes each."""

Refusal = NotAPicture | PictureTooLarge


class PictureVerdicts:
    """By captureId (the digest of what was received); the picture that was seen longest ago is forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._verdicts: OrderedDict[str, bool | tuple[type[Refusal], str]] = OrderedDict()

    def accepted(self, capture_id: str, *, converted: bool) -> None:
        """It is a picture. `converted`: what is kept is a JPEG that was made from it."""
        self._remember(capture_id, converted)

    def refused(self, capture_id: str, error: Refusal) -> None:
        """It is none that is taken."""
        self._remember(capture_id, (type(error), str(error)))

    def sound(self, capture_id: str) -> bool:
        """Whether it is a JPEG that is kept as it is. Raises what it was refused with."""
        verdict = self._verdicts.get(capture_id)
        if isinstance(verdict, tuple):
            kind, text = verdict
            raise kind(text)
        return verdict is False

    def converted(self, capture_id: str) -> bool:
        """Whether it is a picture of which a JPEG is kept."""
        return self._verdicts.get(capture_id) is True

    def _remember(self, capture_id: str, verdict: bool | tuple[type[Refusal], str]) -> None:
        self._verdicts[capture_id] = verdict
        self._verdicts.move_to_end(capture_id)
        while len(self._verdicts) > self._most:
            self._verdicts.popitem(last=False)
