"""The nemesis's clients do what a gateway's answers tell them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools.nemesis.history import Event, History
from tools.nemesis.load import Load
from tools.nemesis.schedule import Request

PICTURE = Request(0, 0.0, "picture", 0, 0)
MADE = (200, {}, {"id": "img_0"})
LATER = (503, {"retry-after": "1"}, {"error": {"code": "service_unavailable"}})
UNREAD = (503, {"x-should-retry": "false"}, {"error": {"code": "result_unavailable"}})


async def events(folder: Path, *answers: tuple[int, dict[str, str], dict[str, Any]]) -> list[Event]:
    """Return what a request for a picture leaves in the history; the last answer is given to all that asks on."""
    left = list(answers)

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-le"))
        await reader.readexactly(length)
        status, headers, content = left.pop(0) if len(left) > 1 else left[0]
        body = json.dumps(content)
        told = {**headers, "content-length": str(len(body)), "connection": "close"}
        lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in told.items())]
        writer.write("\r\n".join([*lines, "", body]).encode())
        writer.close()

    async with await asyncio.start_server(answered, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        cluster: Any = SimpleNamespace(gateways=[url])
        records: Any = None  # nothing is cancelled
        with History(folder / "history.jsonl") as history:
            await Load(cluster, records, history).run((PICTURE,))
            return history.events


@pytest.mark.parametrize(
    ("answers", "kinds"),
    [((LATER, MADE), ["later", "accepted"]), ((UNREAD, MADE), ["failed answer"])],
    ids=["put off", "told not to ask again"],
)
async def test_a_request_is_sent_again_until_it_is_told_not_to(tmp_path: Path, answers: Any, kinds: list[str]) -> None:
    assert [event.kind for event in await events(tmp_path, *answers)] == kinds
