"""``/v1/videos``: create, look at, list, download and delete videos."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vitascope_core.errors import InvalidRequest
from vitascope_core.job import DenoiseSpec, JobKind
from vitascope_gateway.admission import admit_video
from vitascope_gateway.content import chosen_file, file_response
from vitascope_gateway.desk import Desk, is_completed
from vitascope_gateway.enhance_request import received_video
from vitascope_gateway.enhancement import admit_enhancement
from vitascope_gateway.errors import NotFound
from vitascope_gateway.finished_look import finished_look
from vitascope_gateway.ledger import JobView, Status
from vitascope_gateway.previews import VARIANT, preview_response
from vitascope_gateway.usage import usage_object


def video_object(view: JobView) -> dict[str, Any]:
    """Return a job as OpenAI's Video object, with what is known beyond it.

    ``size``, ``seconds``, ``fps`` and ``num_frames`` are those of the finished file. Of a file that was sent nothing is
    known before it was opened: they are null until then, and ``num_frames`` is an estimate until the end.
    """
    spec, end = view.spec, view.end
    look = finished_look(view)
    generated = spec.denoise if spec.ingest is None else None
    failed = end is not None and view.status is Status.FAILED
    completed_at = end.at_ms // 1000 if end is not None and is_completed(view) else None
    return {
        "id": spec.id,
        "object": "video",
        "model": spec.model,
        "status": str(view.status),
        "progress": view.progress,
        "created_at": spec.created_ms // 1000,
        "completed_at": completed_at,
        "expires_at": None if completed_at is None else completed_at + spec.result_ttl_s,
        "prompt": generated.prompt if generated else None,
        "size": f"{look.width}x{look.height}" if look else None,
        "seconds": str(max(1, round(look.frames / look.fps))) if look and look.frames else None,
        "remixed_from_video_id": (spec.ingest.video_id or None) if spec.ingest else None,
        "error": {"code": end.code, "message": end.message} if end is not None and failed else None,
        "seed": _seed(generated) if generated else None,
        "n": spec.outputs,
        "num_frames": (look.frames or None) if look else None,
        "fps": _plain_number(look.fps) if look else None,
        "num_inference_steps": generated.num_inference_steps if generated else None,
        "guidance_scale": generated.guidance_scale if generated else None,
        "usage": None if end is None else usage_object(end.usage),
    }


def _seed(denoise: DenoiseSpec) -> int | list[int]:
    return denoise.seeds[0] if len(denoise.seeds) == 1 else list(denoise.seeds)


def _plain_number(fps: Fraction) -> int | float:
    return fps.numerator if fps.denominator == 1 else round(float(fps), 4)


class VideoRoutes:
    """The handlers of ``/v1/videos``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix="/v1/videos", tags=["videos"])
        router.add_api_route("", self.create, methods=["POST"])
        router.add_api_route("", self.list, methods=["GET"])
        router.add_api_route("/enhance", self.enhance, methods=["POST"])
        router.add_api_route("/{video_id}", self.retrieve, methods=["GET"])
        router.add_api_route("/{video_id}", self.delete, methods=["DELETE"])
        router.add_api_route("/{video_id}/content", self.content, methods=["GET"])
        router.add_api_route("/{video_id}/content", self.content, methods=["HEAD"], include_in_schema=False)
        return router

    async def create(self, request: Request) -> Response:
        """Accept a video; JSON, multipart or urlencoded."""
        desk = self._desk
        fields = await desk.fields(request)
        spec = admit_video(fields, desk.catalogue, desk.owner(request), desk.clock, desk.settings)
        await desk.submission.submit(spec)
        return self._answer(JobView(spec))

    async def enhance(self, request: Request) -> Response:
        """Accept an existing video, sent as a file or named by its id, to be processed further."""
        desk = self._desk
        async with received_video(desk, request) as (fields, given, path):
            spec = admit_enhancement(fields, given, desk.catalogue, desk.owner(request), desk.clock, desk.settings)
            await desk.submission.submit(spec, path)
        return self._answer(JobView(spec))

    async def list(
        self,
        request: Request,
        after: str | None = None,
        limit: Annotated[int, Query(ge=0, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        """List videos by creation."""
        try:
            page = self._desk.board.videos(self._desk.owner(request), after, limit, order)
        except ValueError as error:
            raise InvalidRequest("after", after, "the id of a video") from error
        data = [self._object(view) for view in page.jobs]
        return JSONResponse(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": page.has_more,
            }
        )

    async def retrieve(self, request: Request, video_id: str) -> Response:
        """Look at a video."""
        return self._answer(await self._desk.job(request, video_id, JobKind.VIDEO))

    async def delete(self, request: Request, video_id: str) -> Response:
        """Delete a video; one that is not finished is cancelled."""
        submission = self._desk.submission
        try:
            await self._desk.job(request, video_id, JobKind.VIDEO)
        except NotFound:
            # A deletion that an outage interrupted has left no spec: sending it again finishes it.
            if not await submission.sweep(video_id):
                raise
        else:
            await submission.delete(video_id)
        return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})

    async def content(self, request: Request, video_id: str, variant: str | None = None) -> Response:
        """Download a video, its thumbnail or its spritesheet, whole or in part; a preview while it is made."""
        view = await self._desk.job(request, video_id, JobKind.VIDEO)
        if variant == VARIANT:
            return await preview_response(self._desk, view)
        record = chosen_file(view, variant)
        return await file_response(request, self._desk.results, view, record, self._desk.link(view.spec, record))

    def _object(self, view: JobView) -> dict[str, Any]:
        """Return the Video object with links to its files, where there are any."""
        files = [] if view.end is None else [file for file in view.end.files if file.variant == "video"]
        links = [self._desk.link(view.spec, file) for file in sorted(files, key=lambda file: file.output)]
        urls = [link for link in links if link is not None]
        return video_object(view) | ({"url": urls[0], "urls": urls} if urls else {})

    def _answer(self, view: JobView) -> Response:
        response = JSONResponse(self._object(view))
        if view.end is None:
            response.headers["openai-poll-after-ms"] = str(self._desk.settings.poll_after_ms)
        return response
