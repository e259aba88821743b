"""``/v1/images``: make images while the client waits, and download them."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from vitascope_core.errors import Outage
from vitascope_core.job import EndState, FileRecord, JobEnd, JobKind, JobSpec
from vitascope_gateway.admission import admit_image
from vitascope_gateway.content import chosen_file, file_response
from vitascope_gateway.desk import Desk
from vitascope_gateway.errors import GenerationFailed, WaitTooLong
from vitascope_gateway.usage import image_usage_object

log = logging.getLogger(__name__)

_QUALITY = {"low": "low", "medium": "medium", "standard": "medium", "xhigh": "xhigh", "max": "max"}


class ImageRoutes:
    """The handlers of ``/v1/images``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix="/v1/images", tags=["images"])
        router.add_api_route("/generations", self.generate, methods=["POST"])
        router.add_api_route("/{image_id}/content", self.content, methods=["GET"])
        router.add_api_route("/{image_id}/content", self.content, methods=["HEAD"], include_in_schema=False)
        return router

    async def generate(self, request: Request) -> Response:
        """Make images and answer when they are there."""
        desk = self._desk
        fields = await desk.fields(request)
        spec = admit_image(fields, desk.catalogue, desk.owner(request), desk.clock, desk.settings)
        await desk.submission.submit(spec)
        end = await self._ended(request, spec)
        if end.state is not EndState.COMPLETED:
            raise GenerationFailed(end.code, end.message)
        wanted = fields.text("response_format")
        files = sorted((f for f in end.files if f.variant == "image"), key=lambda f: f.output)
        return await self._answer(spec, end, files, desk.base_url(request), wanted, fields.text("quality"))

    async def content(self, request: Request, image_id: str, variant: str | None = None) -> Response:
        """Download one image of a request, whole or in part."""
        view = await self._desk.job(request, image_id, JobKind.IMAGE)
        record = chosen_file(view, variant)
        return await file_response(request, self._desk.results, view, record, self._desk.link(view.spec, record))

    async def _ended(self, request: Request, spec: JobSpec) -> JobEnd:
        """Return the job's end; cancel the job if its client leaves or has waited long enough."""
        limit_s = self._desk.settings.sync_timeout_s
        waiting = asyncio.create_task(self._desk.board.wait_end(spec.id, limit_s))
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            end = waiting.result() if waiting.done() else None
            left = leaving.done()
        finally:
            waiting.cancel()
            leaving.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)
        if end is not None:
            return end
        standing = await self._cancel(spec.id)
        if standing is not None and standing.state is not EndState.CANCELLED:
            return standing  # it ended just now
        if left:
            raise ClientDisconnect
        raise WaitTooLong(limit_s)

    async def _cancel(self, job_id: str) -> JobEnd | None:
        try:
            return await self._desk.submission.cancel(job_id)
        except Outage as error:
            # It runs on and ends unseen. The client must not be told to try again: that would make it two.
            log.warning("abandoned job not cancelled", extra={"job_id": job_id, "error": str(error)})
            return None

    async def _answer(
        self,
        spec: JobSpec,
        end: JobEnd,
        files: Sequence[FileRecord],
        base_url: str,
        response_format: str | None,
        quality: str | None,
    ) -> Response:
        urls = [self._desk.link(spec, record) or _url(base_url, spec, record) for record in files]
        data: list[bytes] = []
        if response_format != "url":
            data = await asyncio.gather(*(self._desk.results.get(record.key) for record in files))
        body = {
            "id": spec.id,
            "created": spec.created_ms // 1000,
            "background": "opaque",
            "output_format": spec.output.format,
            "quality": _QUALITY.get(quality or "", "high"),
            "size": f"{files[0].width}x{files[0].height}" if files else None,
            "seed": spec.denoise.seeds[0] if spec.outputs == 1 else list(spec.denoise.seeds),
            "usage": image_usage_object(end.usage),
        }
        # In a thread: base64 and JSON of large images take long enough to be felt by every other request.
        return await asyncio.to_thread(_response, body, urls, data, response_format)


def _response(body: dict[str, Any], urls: list[str], data: list[bytes], response_format: str | None) -> Response:
    encoded = [base64.b64encode(item).decode() for item in data]
    texts: Sequence[str | None] = encoded or [None] * len(urls)
    body["data"] = [
        # Without response_format both: LangChain needs the URL, ComfyUI and others take either.
        {"b64_json": text, "url": None if response_format == "b64_json" else url, "revised_prompt": None}
        for url, text in zip(urls, texts, strict=True)
    ]
    return JSONResponse(body)


def _url(base_url: str, spec: JobSpec, record: FileRecord) -> str:
    url = f"{base_url}/v1/images/{spec.id}/content"
    return url if spec.outputs == 1 else f"{url}?variant={record.output}"


async def _left(request: Request) -> None:
    """Return when the client closes the connection; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
