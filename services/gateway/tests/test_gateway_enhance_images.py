"""``POST /v1/images/enhance``: a picture comes in, the larger one is the answer, and what is no good is a 400."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from openai import AsyncOpenAI, BadRequestError
from openai.types import ImagesResponse

from vitascope_core.card import StageCard
from vitascope_core.job import NO_DENOISING, EndState, IngestSpec, JobEnd, JobKind, OutputSpec
from vitascope_core.plan import Plan, StageName, UpscaleOptions
from vitascope_core.task import Queue

PATH = "/v1/images/enhance"
CONTENT = b"a picture" * 20_000
READING = Queue(StageName.INGEST)
LIMITED = StageCard(StageName.UPSCALE, scales=(1, 2, 4, 8), models=("org/own", "org/other"), max_pixels=(9, 8, 7, 6))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, to see what is left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
async def stack(stacks, image_card, scratch: Path):
    async with stacks(cards=(image_card, LIMITED)) as opened:
        yield opened


@asynccontextmanager
async def working(stack, end: JobEnd | None = None) -> AsyncIterator[None]:
    worker = asyncio.create_task(stack.work(end, READING))
    try:
        yield
    finally:
        worker.cancel()


def form(name: str = "image", content: bytes = CONTENT, filename: str = "photo.jpg") -> dict:
    return {name: (filename, content, "image/jpeg")}


async def is_untouched(stack, scratch: Path) -> bool:
    return not (await stack.bucket.entries("") or await stack.frames.list("") or list(scratch.iterdir()))


async def only_spec(stack):
    [job] = {entry.key.partition(".")[0] for entry in await stack.bucket.entries("")}
    return await stack.jobs.spec(job)


@pytest.mark.parametrize(
    ("fields", "upscale", "output", "most"),
    [
        ({}, UpscaleOptions(4), OutputSpec("png", 75), 7),
        ({"enable_upscaling": "true", "upscaling_scale": "8"}, UpscaleOptions(8), OutputSpec("png", 75), 6),
        (
            {"upscaling_scale": "1", "output_format": "jpg", "output_compression": "0"},
            UpscaleOptions(1),
            OutputSpec("jpeg", 0),
            9,
        ),
        # What there is memory for with weights that a request names, only the stage knows.
        ({"upscaling_model_path": "org/other"}, UpscaleOptions(4, "org/other"), OutputSpec("png", 75), 0),
        (
            {"output_format": "webp", "output_quality": "high", "user": "me"},
            UpscaleOptions(4),
            OutputSpec("webp", 90),
            7,
        ),
    ],
)
async def test_a_picture_becomes_a_job_that_reads_it(stack, scratch: Path, fields, upscale, output, most) -> None:
    async with working(stack):
        answer = await stack.client.post(PATH, data=fields, files=form(filename="My photo.jpg"))
    spec = await only_spec(stack)
    key = f"jobs/{spec.id}/inputs/0"

    assert answer.status_code == 200, answer.text
    assert spec.ingest == IngestSpec(key, "My photo.jpg", len(CONTENT), field="image", max_pixels=most)
    assert (spec.kind, spec.denoise, spec.plan) == (
        JobKind.IMAGE,
        NO_DENOISING,
        Plan(StageName.INGEST, upscale=upscale),
    )
    assert spec.output == output
    assert await stack.frames.get(key) == CONTENT
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]"])
async def test_the_file_may_be_named_as_clients_name_it(stack, name: str) -> None:
    async with working(stack):
        answer = await stack.client.post(PATH, files=form(name))
    spec = await only_spec(stack)

    assert answer.status_code == 200, answer.text
    assert await stack.frames.get(spec.ingest.key) == CONTENT


@pytest.mark.parametrize(
    ("response_format", "has"), [(None, (True, True)), ("url", (True, False)), ("b64_json", (False, True))]
)
async def test_the_answer_is_that_of_images(stack, response_format: str | None, has: tuple[bool, bool]) -> None:
    fields = {} if response_format is None else {"response_format": response_format}
    async with working(stack):
        body = (await stack.client.post(PATH, data=fields, files=form())).json()
    [image] = body["data"]

    assert (bool(image["url"]), bool(image["b64_json"])) == has
    assert (body["output_format"], body["seed"], body["background"]) == ("png", None, None)
    assert (body["usage"]["total_tokens"], type(body["created"])) == (0, int)
    if has[1]:
        assert base64.b64decode(image["b64_json"]) == b"PNG"
    if has[0]:
        assert (await stack.client.get(image["url"])).content == b"PNG"


REFUSALS = [
    # fields, files, code, param
    ({"enable_upscaling": "false"}, form(), "unsupported_parameter", "enable_upscaling"),
    ({"upscaling_scale": "1.5"}, form(), "invalid_value", "upscaling_scale"),
    ({"upscaling_scale": "9"}, form(), "invalid_value", "upscaling_scale"),
    ({"upscaling_scale": "large"}, form(), "invalid_type", "upscaling_scale"),
    ({"upscaling_model_path": "/etc/passwd"}, form(), "invalid_value", "upscaling_model_path"),
    ({"upscaling_model_path": "https://x/y"}, form(), "invalid_value", "upscaling_model_path"),
    ({"enable_frame_interpolation": "true"}, form(), "unsupported_parameter", "enable_frame_interpolation"),
    ({"frame_interpolation_exp": "1"}, form(), "unsupported_parameter", "frame_interpolation_exp"),
    ({"frame_interpolation_scale": "1"}, form(), "unsupported_parameter", "frame_interpolation_scale"),
    ({"frame_interpolation_model_path": "x"}, form(), "unsupported_parameter", "frame_interpolation_model_path"),
    ({"output_format": "gif"}, form(), "invalid_value", "output_format"),
    ({"output_format": "mp4"}, form(), "invalid_value", "output_format"),
    ({"output_compression": "50"}, form(), "invalid_value", "output_compression"),
    ({"output_format": "jpeg", "output_compression": "101"}, form(), "invalid_value", "output_compression"),
    ({"output_quality": "best"}, form(), "invalid_value", "output_quality"),
    ({"response_format": "png"}, form(), "invalid_value", "response_format"),
    ({"prompt": "a cat"}, form(), "unsupported_parameter", "prompt"),
    ({"size": "64x64"}, form(), "unsupported_parameter", "size"),
    ({"stream": "true"}, form(), "unsupported_parameter", "stream"),
    ({"background": "transparent"}, form(), "unsupported_parameter", "background"),
    ({"image_url": "https://x/y.png"}, form(), "unsupported_parameter", "image_url"),
    ({"nonsense": "1"}, form(), "unknown_parameter", "nonsense"),
    ({}, form(content=b""), "invalid_value", "image"),
    ({}, [*form().items(), *form().items()], "invalid_value", "image"),
    ({}, [*form("image[]").items(), *form("image[]").items()], "invalid_value", "image"),
    ({}, form("picture"), "missing_required_parameter", "image"),
    ({"image": "https://x/y.png"}, {"x": b""}, "invalid_type", "image"),
    ({"image[]": "https://x/y.png"}, {"x": b""}, "invalid_type", "image"),
]


@pytest.mark.parametrize(("fields", "files", "code", "param"), REFUSALS)
async def test_a_wrong_form_is_refused_and_nothing_stays(stack, scratch: Path, fields, files, code, param) -> None:
    answer = await stack.client.post(PATH, data=fields, files=files)

    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (400, code, param)
    assert await is_untouched(stack, scratch)


@pytest.mark.parametrize(
    ("body", "code"),
    [({}, "missing_required_parameter"), ({"image": "data:image/png;base64,AAAA"}, "invalid_type")],
)
async def test_a_picture_comes_in_a_form_only(stack, body: dict, code: str) -> None:
    answer = await stack.client.post(PATH, json=body)

    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (400, code, "image")


async def test_without_an_upscaler_nothing_is_taken(stacks, image_card, scratch: Path) -> None:
    async with stacks(cards=(image_card,)) as stack:
        answer = await stack.client.post(PATH, files=form())

        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "enable_upscaling")
        assert "no upscaler is installed" in answer.json()["error"]["message"]
        assert await is_untouched(stack, scratch)


@pytest.mark.parametrize(
    ("code", "message", "status", "param"),
    [
        ("unsupported_media", "the file is no picture", 400, "image"),
        ("damaged_media", "the picture is damaged", 400, "image"),
        ("media_too_large", "the picture is 9x9", 400, "image"),
        ("invalid_value", "image must be at most 7 pixels in all, got '9x9'", 400, "image"),
        ("invalid_value", "upscaling_model_path must be one of org/own, got 'org/other'", 400, "upscaling_model_path"),
        ("worker_crashed", "a worker died", 500, None),
        ("input_lost", "the stored object is gone", 500, None),
    ],
)
async def test_a_job_that_says_what_is_wrong_with_the_picture_is_a_bad_request(
    stack, code: str, message: str, status: int, param: str | None
) -> None:
    async with working(stack, JobEnd(EndState.FAILED, "t", 1, code=code, message=message)):
        answer = await stack.client.post(PATH, files=form())
    told = answer.json()["error"]

    assert (answer.status_code, told["code"], told["param"], told["message"]) == (status, code, param, message)


async def test_a_picture_that_takes_too_long_is_cancelled(stacks, image_card) -> None:
    async with stacks(cards=(image_card, LIMITED), sync_timeout_s=0.05) as stack:
        answer = await stack.client.post(PATH, files=form())
        spec = await only_spec(stack)

        assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
        assert (await stack.jobs.end(spec.id)).state is EndState.CANCELLED


async def test_a_client_that_leaves_cancels_its_job(stack) -> None:
    leave = asyncio.Event()
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nabc\r\n--x--\r\n'
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive():
        for message in messages:
            return message
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "server": ("gateway.test", 80),
        "headers": [(b"content-type", b"multipart/form-data; boundary=x")], "client": ("127.0.0.1", 1),
    }  # fmt: skip
    request = asyncio.create_task(stack.app(scope, receive, send))
    while not await stack.bucket.entries(""):  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    spec = await only_spec(stack)
    assert await stack.jobs.end(spec.id) is None
    leave.set()
    await request

    assert (await stack.jobs.end(spec.id)).state is EndState.CANCELLED
    assert await stack.bus.count(spec.id) == 0


async def test_a_picture_may_be_larger_than_other_bodies(stacks, image_card) -> None:
    sizes = {"max_body_bytes": 65536, "max_upload_bytes": 131072}
    async with stacks(cards=(image_card, LIMITED), **sizes) as stack, working(stack):
        large = await stack.client.post(PATH, files=form(content=b"x" * 100_000))
        too_large = await stack.client.post(PATH, files=form(content=b"x" * 131_072))

    assert (large.status_code, too_large.status_code) == (200, 413)


async def test_the_openai_client_can_send_a_picture(stack, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(CONTENT)
    openai = AsyncOpenAI(base_url="http://gateway.test/v1", api_key="unused", http_client=stack.client, max_retries=0)

    async def post(**fields: object) -> ImagesResponse:
        with (tmp_path / "photo.jpg").open("rb") as file:
            return await openai.post(
                "/images/enhance",
                cast_to=ImagesResponse,
                body=fields,
                files={"image": file},
                options={"headers": {"Content-Type": "multipart/form-data"}},
            )

    async with working(stack):
        made = await post(upscaling_scale=2)
    refused = JobEnd(EndState.FAILED, "t", 1, code="damaged_media", message="the picture is damaged")
    async with working(stack, refused):
        with pytest.raises(BadRequestError) as told:
            await post()

    assert base64.b64decode(made.data[0].b64_json) == b"PNG"
    assert (told.value.param, told.value.code) == ("image", "damaged_media")
