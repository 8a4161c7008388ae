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
    """Pictures in a bucket that the queue server creates, for any number of web servers.

    `uploads`: a directory of this process for unfinished uploads.

    Example::

        pictures = NatsPictureStore(bus, data_dir / "uploads")
        content = await pictures.read("P001", "E001", capture_id)
    """

    def __init__(self, bus: Bus, uploads: Path) -> None:
        super().__init__(uploads, bus.clock.now)
        self._objects = ObjectStore(bus, CAPTURES_BUCKET)
        self._picture_objects: dict[StoredPicture, StoredObject] = {}
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

    async def pictures(self, plan_id: str | None = None, examinee_id: str | None = None) -> list[StoredPicture]:
        self._picture_objects, self._links = {}, {}
        for stored in await self._objects.objects():
            *owner, name = stored.name.split("/")
            if len(owner) != 2 or plan_id not in (None, owner[0]) or examinee_id not in (None, owner[1]):
                continue
            if stored.link is not None:
                self._links[stored.link] = stored
            elif CAPTURE_ID.fullmatch(stem := name.removesuffix(".jpg")):
                self._picture_objects[StoredPicture(owner[0], owner[1], stem, stored.stored_at)] = stored
        return list(self._picture_objects)

    async def delete(self, plan_id: str, examinee_id: str | None = None) -> int:
        pictures = await self.pictures(plan_id, examinee_id)
        for stored in (*self._links.values(), *(self._picture_objects[picture] for picture in pictures)):
            await self._objects.remove(stored)
        return len(pictures)

    async def _remove(self, picture: StoredPicture) -> bool:
        stored = self._picture_objects[picture]
        if (link := self._links.get(stored.name)) is not None:
            await self._objects.remove(link)
        return await self._objects.remove(stored)

    def _aside_of(self, _plan_id: str, _examinee_id: str) -> Path:
        return self._uploads

    async def _sweep_leftovers(self, before: float) -> int:
        return await super()._sweep_leftovers(before) + await self._objects.sweep(before)
