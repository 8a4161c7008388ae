"""Pictures in an object store of NATS."""

from __future__ import annotations

from pathlib import Path

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.object_store import ObjectStore, StoredObject
from actors.web_server.pictures.incoming import Incoming, StoreFailed
from actors.web_server.pictures.store import CAPTURE_ID, FILE_NAME, PictureStore, StoredPicture, file_name
from protocol.broker.streams import CAPTURES_BUCKET
from protocol.errors import NotPermitted, StreamFull


class NatsPictureStore(PictureStore):
    """In a bucket that the queue server has made, for any number of web servers. `uploads`: a directory of our own."""

    def __init__(self, bus: Bus, uploads: Path) -> None:
        super().__init__(uploads, bus.clock.now)
        self._objects = ObjectStore(bus, CAPTURES_BUCKET)
        self._found: dict[StoredPicture, StoredObject] = {}
        self._links: dict[str, StoredObject] = {}

    async def commit(self, incoming: Incoming) -> None:
        content = await self.in_thread(incoming.content)
        owner = f"{incoming.plan_id}/{incoming.examinee_id}"
        try:
            await self._objects.put(f"{owner}/{incoming.capture_id}.jpg", content)
            await self._objects.link(f"{owner}/{FILE_NAME}", f"{owner}/{incoming.capture_id}.jpg")
        except (StreamFull, NotPermitted) as error:
            raise StoreFailed(str(error)) from error

    async def read(self, plan_id: str, examinee_id: str, capture_id: str | None) -> bytes | None:
        return await self._objects.get(f"{plan_id}/{examinee_id}/{file_name(capture_id)}")

    async def _kept(self) -> list[StoredPicture]:
        self._found, self._links = {}, {}
        for one in await self._objects.objects():
            *owner, name = one.name.split("/")
            if one.link is not None:
                self._links[one.link] = one
            elif len(owner) == 2 and CAPTURE_ID.fullmatch(stem := name.removesuffix(".jpg")):
                self._found[StoredPicture(owner[0], owner[1], stem, one.stored_at)] = one
        return list(self._found)

    async def _remove(self, kept: StoredPicture) -> bool:
        found = self._found[kept]
        if (link := self._links.get(found.name)) is not None:
            await self._objects.remove(link)
        return await self._objects.remove(found)

    def _aside_of(self, _plan_id: str, _examinee_id: str) -> Path:
        return self._uploads

    async def _sweep_leftovers(self, before: float) -> int:
        return await super()._sweep_leftovers(before) + await self._objects.sweep(before)
