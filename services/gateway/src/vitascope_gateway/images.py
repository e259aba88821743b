"""``/v1/images``: make images, or enlarge one, while the client waits, and download them."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vitascope_core.errors import Outage
from vitascope_core.job import EndState, FileRecord, JobEnd, JobKind, JobSpec
from vitascope_gateway.admission import admit_image
from vitascope_gateway.content import chosen_file, file_response
from vitascope_gateway.desk import Desk
from vitascope_gateway.enhance_request import received_picture
from vitascope_gateway.errors import GenerationFailed, ResultUnavailable
from vitascope_gateway.event_stream import Event, EventStream
from vitascope_gateway.fields import Fields
from vitascope_gateway.picture_enhancement import admit_picture, refusal
from vitascope_gateway.previews import preview
from vitascope_gateway.usage import image_usage_object
from vitascope_gateway.waiting import Shown, ended, events

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
        router.add_api_route("/enhance", self.enhance, methods=["POST"])
        router.add_api_route("/{image_id}/content", self.content, methods=["GET"])
        router.add_api_route("/{image_id}/content", self.content, methods=["HEAD"], include_in_schema=False)
        return router

    async def generate(self, request: Request) -> Response:
        """Make images and answer when they are there, or with events on the way."""
        desk = self._desk
        fields = await desk.fields(request)
        spec = admit_image(fields, desk.catalogue, desk.owner(request), desk.clock, desk.settings)
        await desk.submission.submit(spec)
        quality = _quality(fields)
        if fields.flag("stream"):
            base_url = desk.base_url(request)
            return EventStream(self._events(request, spec, base_url, quality), desk.settings.retry_after_s)
        end = _completed(await ended(desk, request, spec))
        return await self._answer(spec, end, desk.base_url(request), fields.text("response_format"), quality)

    async def enhance(self, request: Request) -> Response:
        """Enlarge a picture, sent as a file, and answer when that is done."""
        desk = self._desk
        async with received_picture(desk, request) as (fields, given, path):
            spec = admit_picture(fields, given, desk.catalogue, desk.owner(request), desk.clock, desk.settings)
            await desk.submission.submit(spec, path)
        end = await ended(desk, request, spec)
        refused = refusal(end)
        if refused is not None:
            raise refused
        base_url, response_format = desk.base_url(request), fields.text("response_format")
        return await self._answer(spec, _completed(end), base_url, response_format, _quality(fields))

    async def content(self, request: Request, image_id: str, variant: str | None = None) -> Response:
        """Download one image of a request, whole or in part."""
        view = await self._desk.job(request, image_id, JobKind.IMAGE)
        record = chosen_file(view, variant)
        return await file_response(request, self._desk.results, view, record, self._desk.link(view.spec, record))

    async def _events(
        self, request: Request, spec: JobSpec, base_url: str, quality: str
    ) -> AsyncGenerator[Event | None, None]:
        """Yield each preview as it is made, then the finished image."""
        shown = 0
        async with aclosing(events(self._desk, request, spec)) as heard:
            async for news in heard:
                if news is None:
                    yield None
                elif isinstance(news, Shown):
                    for index in range(shown, news.previews):
                        data = await self._preview(spec, news.attempt, index)
                        if data is not None:
                            about = _about(spec, quality, spec.denoise.width, spec.denoise.height)
                            encoded = {"b64_json": base64.b64encode(data).decode(), "partial_image_index": index}
                            yield {"type": "image_generation.partial_image", **encoded, **about}
                    shown = news.previews
                else:
                    yield await self._finished(spec, _completed(news), base_url, quality)

    async def _preview(self, spec: JobSpec, attempt: int, index: int) -> bytes | None:
        try:
            return await preview(self._desk, spec.id, attempt, index)
        except Outage as error:
            # Fewer than asked for may come; the image is not to fail for one.
            log.warning("preview not shown", extra={"job_id": spec.id, "error": str(error)})
            return None

    async def _finished(self, spec: JobSpec, end: JobEnd, base_url: str, quality: str) -> Event:
        record = next(file for file in end.files if file.variant == "image")
        [data] = await self._data([record], [self._link(spec, record, base_url)])
        encoded = {"b64_json": (await asyncio.to_thread(base64.b64encode, data)).decode()}
        about = _about(spec, quality, record.width, record.height)
        seed = {"id": spec.id, "seed": spec.denoise.seeds[0], "usage": image_usage_object(end.usage)}
        return {"type": "image_generation.completed", **encoded, **about, **seed}

    async def _answer(
        self, spec: JobSpec, end: JobEnd, base_url: str, response_format: str | None, quality: str
    ) -> Response:
        files = sorted((f for f in end.files if f.variant == "image"), key=lambda f: f.output)
        urls = [self._link(spec, record, base_url) for record in files]
        data = await self._data(files, urls) if response_format != "url" else []
        body = {
            "id": spec.id,
            "created": spec.created_ms // 1000,
            # A picture that was sent keeps its own.
            "background": "opaque" if spec.ingest is None else None,
            "output_format": spec.output.format,
            "quality": quality,
            "size": f"{files[0].width}x{files[0].height}" if files else None,
            "seed": _seed(spec),
            "usage": image_usage_object(end.usage),
        }
        # In a thread: base64 and JSON of large images take long enough to be felt by every other request.
        return await asyncio.to_thread(_response, body, urls, data, response_format)

    async def _data(self, files: Sequence[FileRecord], urls: Sequence[str]) -> list[bytes]:
        try:
            return await asyncio.gather(*(self._desk.results.get(record.key) for record in files))
        except Outage as error:
            raise ResultUnavailable(urls) from error

    def _link(self, spec: JobSpec, record: FileRecord, base_url: str) -> str:
        return self._desk.link(spec, record) or _url(base_url, spec, record)


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


def _about(spec: JobSpec, quality: str, width: int, height: int) -> dict[str, Any]:
    return {
        "created_at": spec.created_ms // 1000,
        "size": f"{width}x{height}",
        "quality": quality,
        "background": "opaque",
        "output_format": spec.output.format,
    }


def _quality(fields: Fields) -> str:
    return _QUALITY.get(fields.text("quality") or "", "high")


def _seed(spec: JobSpec) -> int | list[int] | None:
    if spec.ingest is not None:
        return None
    return spec.denoise.seeds[0] if spec.outputs == 1 else list(spec.denoise.seeds)


def _completed(end: JobEnd) -> JobEnd:
    if end.state is not EndState.COMPLETED:
        raise GenerationFailed(end.code, end.message)
    return end
