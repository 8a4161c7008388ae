"""Remember the results of decoding, so that a picture that is sent again is not decoded again."""

from __future__ import annotations

from collections import OrderedDict

from actors.web_server.pictures.limits import NotAPicture, PictureTooLarge

MOST = 10_000
"""Pictures that are remembered; about 200 bytes each."""

Refusal = NotAPicture | PictureTooLarge


class PictureVerdicts:
    """The results of decoding by captureId (the digest of the received bytes); the oldest are forgotten first.

    Example::

        verdicts = PictureVerdicts()
        verdicts.accepted(capture_id, converted=False)
        verdicts.sound(capture_id)  # True
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._verdicts: OrderedDict[str, bool | tuple[type[Refusal], str]] = OrderedDict()

    def accepted(self, capture_id: str, *, converted: bool) -> None:
        """Remember a picture that was accepted. `converted`: it was converted into the JPEG that is kept."""
        self._remember(capture_id, converted)

    def refused(self, capture_id: str, error: Refusal) -> None:
        """Remember a picture that was refused, with its error."""
        self._remember(capture_id, (type(error), str(error)))

    def sound(self, capture_id: str) -> bool:
        """Return whether the picture is a known JPEG, kept unchanged. Raises the error it was refused with."""
        verdict = self._verdicts.get(capture_id)
        if isinstance(verdict, tuple):
            kind, text = verdict
            raise kind(text)
        return verdict is False

    def converted(self, capture_id: str) -> bool:
        """Return whether the picture is known to be converted into a JPEG."""
        return self._verdicts.get(capture_id) is True

    def _remember(self, capture_id: str, verdict: bool | tuple[type[Refusal], str]) -> None:
        self._verdicts[capture_id] = verdict
        self._verdicts.move_to_end(capture_id)
        while len(self._verdicts) > self._most:
            self._verdicts.popitem(last=False)
