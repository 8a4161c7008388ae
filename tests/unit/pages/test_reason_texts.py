"""Whatever a mobile sync can fail for has a text for the examinee and for the proctor, in both languages."""

from __future__ import annotations

import pytest

from actors.web_server.pages import DIRECTORY
from protocol.messages.facts import MobileSyncReason

OF_NO_PICTURE = {
    MobileSyncReason.IMAGE_UPLOAD_FAILED,  # of older releases: "mobile.failed"
    MobileSyncReason.STATE_CHANGE_FAILED,
    MobileSyncReason.SYNC_TIMEOUT,
}


@pytest.mark.parametrize("language", ["en", "ko"])
def test_each_reason_has_a_text(language: str) -> None:
    examinee = (DIRECTORY / f"static/examinee/texts.{language}.js").read_text()
    proctor = (DIRECTORY / f"static/proctor/locales/{language}.js").read_text()
    assert '"mobile.failed":' in examinee
    for reason in MobileSyncReason:
        assert f'"reason.{reason}":' in proctor
        assert reason in OF_NO_PICTURE or f'"mobile.failed.{reason}":' in examinee, reason
