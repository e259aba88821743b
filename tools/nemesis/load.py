"""Clients: they ask for what the schedule says, ask again when they are not answered, and look on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx

from tools.cluster.cluster import Cluster
from tools.nemesis.forms import FORMS, REFUSALS
from tools.nemesis.history import History
from tools.nemesis.records import Records
from tools.nemesis.schedule import Follow, Request
from vitascope_core.job import JobKind

PROMPT = "nemesis"
"""A request's prompt is this and its number: so a job is recognised whose client never heard of it."""

PATHS = {JobKind.VIDEO: "/v1/videos", JobKind.IMAGE: "/v1/images/generations"}

_TIMEOUT_S = 60.0
_AGAIN_S = 0.5
_AGAIN = (429, 503)


class Load:
    """Sends requests to the gateways."""

    def __init__(self, cluster: Cluster, records: Records, history: History) -> None:
        self._cluster = cluster
        self._records = records
        self._history = history
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits)

    async def run(self, requests: tuple[Request, ...]) -> None:
        """Send all of them at their times; return when the last one was answered."""
        async with self._client, asyncio.TaskGroup() as group:
            for request in requests:
                group.create_task(self._at_its_time(request))

    async def _at_its_time(self, request: Request) -> None:
        await asyncio.sleep(request.at_s - self._history.now_s)
        if request.follow is Follow.REFUSE:
            await self._refused(request)
        elif FORMS[request.form].kind is JobKind.IMAGE:
            await self._image(request)
        else:
            await self._video(request)

    async def _refused(self, request: Request) -> None:
        case = REFUSALS[int(request.form)]
        fields = dict(case.fields) if case.whole else {"prompt": "refuse me", **case.fields}
        answer = await self._until_answered("POST", case.path, request, fields)
        error = _error(answer)
        self._history.add(
            "refusal",
            number=request.number,
            wanted=[case.status, case.code, case.param],
            got=[answer.status_code, error.get("code"), error.get("param")],
        )

    async def _image(self, request: Request) -> None:
        asking = asyncio.create_task(self._until_answered("POST", PATHS[JobKind.IMAGE], request, fields_of(request)))
        if request.follow is Follow.HANG_UP:
            done, _ = await asyncio.wait({asking}, timeout=request.after_s)
            if not done:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                self._history.add("hung up", number=request.number)
                return
        answer = await asking
        if answer.status_code == 200:
            self._history.add("accepted", number=request.number, job=answer.json()["id"])
        else:
            self._unhappy(request, answer)

    async def _video(self, request: Request) -> None:
        answer = await self._until_answered("POST", PATHS[JobKind.VIDEO], request, fields_of(request))
        if answer.status_code != 200:
            return self._unhappy(request, answer)
        job = str(answer.json()["id"])
        self._history.add("accepted", number=request.number, job=job)
        if request.follow is Follow.KEEP:
            return None
        await asyncio.sleep(request.after_s)
        if request.follow is Follow.CANCEL:
            self._history.add("cancelling", job=job)
            standing = await self._records.cancel(job)
            self._history.add("cancelled", job=job, state=str(standing.state), token=standing.token)
        else:
            self._history.add("deleting", job=job)
            answer = await self._until_answered("DELETE", f"/v1/videos/{job}", request)
            self._history.add("deleted", job=job, status=answer.status_code)
        return None

    async def _until_answered(
        self, method: str, path: str, request: Request, fields: dict[str, Any] | None = None
    ) -> httpx.Response:
        """Send a request to one gateway after the other until one says more than "later", or not to ask again."""
        tries = 0
        while True:
            urls = [url for url in self._cluster.gateways if url]
            if urls:
                url = urls[(request.gateway + tries) % len(urls)] + path
                try:
                    answer = await self._client.request(method, url, json=fields)
                except httpx.TransportError as error:
                    self._history.add("unanswered", number=request.number, error=type(error).__name__)
                else:
                    if answer.status_code not in _AGAIN or answer.headers.get("x-should-retry") == "false":
                        return answer
                    said = [answer.status_code, _error(answer).get("code"), answer.headers.get("retry-after")]
                    self._history.add("later", number=request.number, answer=said)
            tries += 1
            await asyncio.sleep(_AGAIN_S)

    def _unhappy(self, request: Request, answer: httpx.Response) -> None:
        error = _error(answer)
        facts = {"status": answer.status_code, "code": error.get("code"), "message": error.get("message")}
        again = answer.headers.get("x-should-retry")
        self._history.add("failed answer", number=request.number, form=request.form, again=again, **facts)


def fields_of(request: Request) -> dict[str, Any]:
    """Return the body of a request."""
    return {"prompt": f"{PROMPT} {request.number}", "seed": request.seed, **FORMS[request.form].fields}


def _error(answer: httpx.Response) -> dict[str, Any]:
    with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
        return dict(answer.json()["error"])
    return {}
