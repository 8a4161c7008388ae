"""WebSocket frames that are not plain, and closing: the library's part of a connection."""

from __future__ import annotations

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SERVER, Protocol

from protocol.messages.frames import MAX_FRAME_BYTES

MOST_FRAGMENTS = 4096
"""A message in more frames is refused, as by the library's own connections."""


class LibraryConnection(Protocol):
    """The server's side of a WebSocket that is open. It is made when something comes up that is not plain.

    connection = LibraryConnection()
    number, messages = connection.receive(data)
    transport.writelines(connection.data_to_send())
    """

    def __init__(self) -> None:
        super().__init__(SERVER, max_size=MAX_FRAME_BYTES)
        self._fragments: list[bytes] = []
        self._binary = False

    def receive(self, data: bytes | bytearray) -> tuple[int, list[bytes | None]]:
        """Read data. Return the number of frames in it, and the messages that are complete: texts, `None` if binary."""
        self.receive_data(data)
        events = self.events_received()
        messages: list[bytes | None] = []
        for frame in events:
            assert isinstance(frame, Frame)
            if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                continue
            if frame.opcode is not Opcode.CONT:
                self._binary = frame.opcode is Opcode.BINARY
            if len(self._fragments) >= MOST_FRAGMENTS:
                self.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
                break
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                messages.append(None if self._binary else b"".join(self._fragments))
                self._fragments = []
        return len(events), messages

    def break_cycles(self) -> None:
        """Remove what refers back to this object, so that its memory is free without a garbage collection."""
        self.parser.close()
        if self.parser_exc is not None:
            self.parser_exc.__traceback__ = None
