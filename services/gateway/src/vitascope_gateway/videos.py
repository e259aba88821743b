"""``/v1/videos``: create, look at, list, download and delete videos."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vitascope_core.errors import InvalidRequest
from vitascope_core.job import JobKind, JobSpec
from vitascope_gateway.admission import admit_video
from vitascope_gateway.content import chosen_file, file_response
from vitascope_gateway.desk import Desk, is_completed
from vitascope_gateway.errors import NotFound
from vitascope_gateway.ledger import JobView, Status
from vitascope_gateway.usage import usage_object


def video_object(view: JobView) -> dict[str, Any]:
    """Return a job as OpenAI's Video object, with what is known beyond it.

    ``size``, ``seconds``, ``fps`` and ``num_frames`` are those of the finished file.
    """
    spec, end = view.spec, view.end
    width, height = _finished_size(view)
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
        "prompt": spec.denoise.prompt,
        "size": f"{width}x{height}",
        "seconds": str(max(1, round(spec.out_frames / spec.out_fps))),
        "remixed_from_video_id": None,
        "error": {"code": end.code, "message": end.message} if end is not None and failed else None,
        "seed": spec.denoise.seeds[0] if spec.outputs == 1 else list(spec.denoise.seeds),
        "n": spec.outputs,
        "num_frames": spec.out_frames,
        "fps": _plain_number(spec),
        "num_inference_steps": spec.denoise.num_inference_steps,
        "guidance_scale": spec.denoise.guidance_scale,
        "usage": None if end is None else usage_object(end.usage),
    }


def _finished_size(view: JobView) -> tuple[int, int]:
    for record in view.end.files if view.end is not None else ():
        if record.variant == "video":
            return record.width, record.height
    factor = view.spec.plan.size_factor
    width, height = view.spec.denoise.width * factor, view.spec.denoise.height * factor
    # H.264 with 4:2:0 has even sides only; the uploader repeats the last row or column.
    return width + width % 2, height + height % 2


def _plain_number(spec: JobSpec) -> int | float:
    fps = spec.out_fps
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
        """Download a video, its thumbnail or its spritesheet, whole or in part."""
        view = await self._desk.job(request, video_id, JobKind.VIDEO)
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
