"""``POST /v1/videos/enhance``: a file or a finished video comes in, and nothing stays of what is refused."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from openai.types import Video

from vitascope_core.card import StageCard
from vitascope_core.errors import InvalidRequest, StoreUnavailable
from vitascope_core.job import (
    NO_DENOISING,
    ChunkRecord,
    EndState,
    FileRecord,
    IngestSpec,
    JobEnd,
    Media,
    SourceRecord,
    SourceState,
)
from vitascope_core.plan import InterpolateOptions, Plan, StageName, UpscaleOptions
from vitascope_core.task import Queue
from vitascope_gateway.enhancement import admit_enhancement
from vitascope_gateway.fields import Fields
from vitascope_gateway.ingestion import Given
from vitascope_gateway.ledger import Ledger
from vitascope_platform.clock import SystemClock
from vitascope_platform.jobs import JobChange

PATH = "/v1/videos/enhance"
CONTENT = b"moving pictures" * 20_000
ON = {"enable_frame_interpolation": "true"}
LARGER = {"enable_upscaling": "true"}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, to see what is left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
async def stack(stacks, video_card, transforms, scratch: Path):
    async with stacks(cards=(video_card, *transforms)) as opened:
        yield opened


def form(name: str = "clip.mp4", content: bytes = CONTENT) -> dict:
    return {"video": (name, content, "video/mp4")}


async def taken(stack) -> list[str]:
    """Return the jobs that wait to be read."""
    return [delivery.task.job_id for delivery in await stack.bus.fetch(Queue(StageName.INGEST), 10, 0.0)]


async def is_untouched(stack, scratch: Path) -> bool:
    return not (await stack.bucket.entries("") or await stack.frames.list("") or list(scratch.iterdir()))


async def test_an_uploaded_file_becomes_a_job_that_reads_it(stack, scratch: Path) -> None:
    data = {
        **ON,
        "frame_interpolation_exp": "2",
        "enable_upscaling": "1",
        "output_quality": "high",
        "chunk_frames": "7",
    }
    answer = await stack.client.post(PATH, data=data, files=form("My clip.mp4"))
    body = answer.json()
    spec = await stack.jobs.spec(body["id"])

    assert answer.status_code == 200, answer.text
    assert spec.ingest == IngestSpec(f"jobs/{spec.id}/inputs/0", "My clip.mp4", len(CONTENT), chunk_frames=7)
    assert spec.plan == Plan(StageName.INGEST, InterpolateOptions(2), UpscaleOptions(4))
    assert (spec.denoise, spec.cuts, spec.output.compression) == (NO_DENOISING, (), 90)
    assert await stack.frames.get(spec.ingest.key) == CONTENT
    assert await taken(stack) == [spec.id]
    assert list(scratch.iterdir()) == []


async def test_the_video_object_says_what_is_known_when(stack) -> None:
    made = (await stack.client.post(PATH, data={**ON, "enable_upscaling": "1"}, files=form())).json()
    video = made["id"]

    async def seen(**record: object) -> dict:
        claim = await stack.jobs.source(video)
        record_ = SourceRecord(1, "w", beat=1 + (claim.record.beat if claim else 0), **record)
        await stack.jobs.swap_source(video, record_, claim.revision if claim else None)
        await stack.settled(lambda: (view := stack.board.job(video)) and view.source == record_)
        return (await stack.client.get(f"/v1/videos/{video}")).json()

    claimed = await seen()
    opened = await seen(media=Media(63, 47, Fraction(24000, 1001), 48))
    file = FileRecord(0, "video", "k", "video/mp4", 9, 252, 188, 93, Fraction(48000, 1001))
    await stack.jobs.create_end(video, JobEnd(EndState.COMPLETED, "t", 1, files=(file,)))
    await stack.settled(lambda: stack.board.job(video).end)
    done = (await stack.client.get(f"/v1/videos/{video}")).json()

    unknown = {"size": None, "seconds": None, "num_frames": None, "fps": None}
    generated = {"prompt": None, "seed": None, "num_inference_steps": None, "guidance_scale": None}
    assert unknown.items() | generated.items() <= made.items()
    assert (made["status"], made["object"], made["model"], made["remixed_from_video_id"]) == (
        "queued",
        "video",
        "",
        None,
    )
    assert unknown.items() <= claimed.items()
    assert {"size": "252x188", "seconds": "2", "num_frames": 95, "fps": 47.952}.items() <= opened.items()
    assert {"size": "252x188", "seconds": "2", "num_frames": 93, "fps": 47.952}.items() <= done.items()
    assert [(await stack.client.get("/v1/videos")).json()["data"][0]] == [done]


def test_progress_counts_chunks_that_are_read_and_made(flat_spec) -> None:
    plan = Plan(StageName.INGEST, InterpolateOptions())
    spec = flat_spec(denoise=NO_DENOISING, cuts=(), plan=plan, ingest=IngestSpec("k", chunk_frames=10))
    opened = SourceRecord(1, "w", beat=1, media=Media(64, 48, Fraction(24), 95))
    ledger, told = Ledger(), []

    def tell(*records: SourceRecord | ChunkRecord) -> None:
        for record in records:
            ledger.apply(JobChange(spec.id, "chunk" if isinstance(record, ChunkRecord) else "source", record))
        told.append(ledger.get(spec.id).progress)

    def chunks(stage: StageName, count: int) -> list[ChunkRecord]:
        return [ChunkRecord(1, stage, 0, index, "k", 0, 1, last=False) for index in range(count)]

    ledger.apply(JobChange(spec.id, "spec", spec))
    tell(SourceRecord(1, "w"))
    tell(opened)
    tell(*chunks(StageName.INGEST, 5))
    tell(*chunks(StageName.INTERPOLATE, 5))
    # It turns out to be twice as long as its header said: progress waits, and goes on from there.
    tell(*chunks(StageName.INGEST, 20))
    tell(replace(opened, state=SourceState.DECODED, chunks=(20,), beat=2))
    tell(*chunks(StageName.INTERPOLATE, 15))
    tell(*chunks(StageName.INTERPOLATE, 20))

    assert told == [0, 0, 5, 49, 54, 54, 76, 99]


async def finished(stack, **fields: object) -> str:
    video = (await stack.client.post("/v1/videos", json={"prompt": "a cat", **fields})).json()["id"]
    await stack.complete(video, CONTENT)
    await stack.settled(lambda: (view := stack.board.job(video)) and view.end)
    return video


@pytest.mark.parametrize("said", ["video", "video_id", "form", "multipart"])
async def test_a_finished_video_is_named_by_its_id(stack, said: str) -> None:
    video = await finished(stack)
    if said == "multipart":
        parts = {name: (None, value) for name, value in {**ON, "video[id]": video}.items()}
        answer = await stack.client.post(PATH, files=parts)
    elif said == "form":
        answer = await stack.client.post(PATH, data={**ON, "video[id]": video})
    else:
        fields = {"video": {"id": video}} if said == "video" else {"video_id": video}
        answer = await stack.client.post(PATH, json={"enable_frame_interpolation": True, **fields})
    body = answer.json()
    spec = await stack.jobs.spec(body["id"])

    assert answer.status_code == 200, answer.text
    assert await stack.frames.get(spec.ingest.key) == CONTENT
    assert (spec.ingest.video_id, spec.ingest.size, spec.model) == (video, len(CONTENT), "org/clips")
    assert (body["remixed_from_video_id"], body["size"], body["prompt"]) == (video, "64x48", None)


async def test_of_several_outputs_one_is_named(stack) -> None:
    video = await finished(stack, n=2)
    vague = await stack.client.post(PATH, json={"enable_frame_interpolation": True, "video_id": video})
    wrong = await stack.client.post(PATH, json={"enable_frame_interpolation": True, "video_id": video, "variant": 2})
    named = await stack.client.post(PATH, json={"enable_frame_interpolation": True, "video_id": video, "variant": 1})

    assert [answer.status_code for answer in (vague, wrong, named)] == [400, 400, 200]
    assert [answer.json()["error"]["param"] for answer in (vague, wrong)] == ["variant", "variant"]


REFUSALS = [
    # fields, files, code, param
    ({}, form(), "unsupported_parameter", "enable_frame_interpolation"),
    ({"enable_frame_interpolation": "false"}, form(), "unsupported_parameter", "enable_frame_interpolation"),
    ({"frame_interpolation_exp": "1"}, form(), "unsupported_parameter", "frame_interpolation_exp"),
    ({**ON, "frame_interpolation_exp": "3"}, form(), "invalid_value", "frame_interpolation_exp"),
    ({**ON, "frame_interpolation_exp": "true"}, form(), "invalid_type", "frame_interpolation_exp"),
    (
        {**ON, "frame_interpolation_model_path": "https://x/y"},
        form(),
        "invalid_value",
        "frame_interpolation_model_path",
    ),
    ({"upscaling_scale": "2"}, form(), "unsupported_parameter", "upscaling_scale"),
    ({**LARGER, "upscaling_scale": "3"}, form(), "invalid_value", "upscaling_scale"),
    ({**LARGER, "upscaling_scale": "1.5"}, form(), "invalid_value", "upscaling_scale"),
    ({**LARGER, "upscaling_scale": "large"}, form(), "invalid_type", "upscaling_scale"),
    ({**LARGER, "upscaling_model_path": "https://x/y"}, form(), "invalid_value", "upscaling_model_path"),
    ({**LARGER, "upscaling_model_path": "org/other"}, form(), "unsupported_parameter", "upscaling_model_path"),
    ({**ON, "prompt": "a cat"}, form(), "unsupported_parameter", "prompt"),
    ({**ON, "fps": "30"}, form(), "unsupported_parameter", "fps"),
    ({**ON, "nonsense": "1"}, form(), "unknown_parameter", "nonsense"),
    ({**ON, "output_format": "webm"}, form(), "invalid_value", "output_format"),
    ({**ON, "chunk_frames": "0"}, form(), "invalid_value", "chunk_frames"),
    (ON, form(content=b""), "invalid_value", "video"),
    (ON, [*form().items(), *form().items()], "invalid_value", "video"),
    (ON, {"clip": b"x"}, "missing_required_parameter", "video"),
    ({**ON, "video": "https://example.org/a.mp4"}, {"x": b""}, "invalid_type", "video"),
    ({**ON, "video_url": "https://example.org/a.mp4"}, form(), "unsupported_parameter", "video_url"),
    ({**ON, "video_id": "video_1"}, form(), "invalid_value", "video_id"),
]


@pytest.mark.parametrize(("fields", "files", "code", "param"), REFUSALS)
async def test_a_wrong_form_is_refused_and_nothing_stays(stack, scratch: Path, fields, files, code, param) -> None:
    answer = await stack.client.post(PATH, data=fields, files=files)

    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (400, code, param)
    assert await is_untouched(stack, scratch)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "video"),
        ({"video": {"id": "video_" + "0" * 32}}, 404, None),
        ({"video_id": "../../etc"}, 404, None),
        ({"video": {"url": "https://x"}}, 400, "video"),
        ({"video": {"id": 7}}, 400, "video"),
        ({"video": [1]}, 400, "video"),
        ({"video": 7}, 400, "video"),
        ({"video_id": 7}, 400, "video_id"),
    ],
)
async def test_a_wrong_id_is_refused(stack, scratch: Path, fields: dict, status: int, param: str | None) -> None:
    answer = await stack.client.post(PATH, json={"enable_frame_interpolation": True, **fields})

    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert await is_untouched(stack, scratch)


async def test_a_video_that_is_not_finished_cannot_be_enhanced(stack) -> None:
    video = (await stack.client.post("/v1/videos", json={"prompt": "a cat"})).json()["id"]
    answer = await stack.client.post(PATH, json={"enable_frame_interpolation": True, "video": {"id": video}})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "video.id")


# Frames of 64x48 are of a size that the default weights have memory for at scale 2, but not at 4.
LIMITED = StageCard(StageName.UPSCALE, scales=(2, 4), models=("org/own", "org/other"), max_pixels=(3072, 3071))


@pytest.mark.parametrize("field", ["video.id", "video_id"])
async def test_a_finished_video_whose_frames_are_too_large_is_refused(stacks, video_card, scratch, field: str) -> None:
    async with stacks(cards=(video_card, LIMITED)) as stack:
        video = await finished(stack)
        before = await stack.bucket.entries("")
        named = {"video": {"id": video}} if field == "video.id" else {"video_id": video}
        answer = await stack.client.post(PATH, json={**named, "enable_upscaling": True})
        told = answer.json()["error"]

        assert (answer.status_code, told["code"], told["param"]) == (400, "invalid_value", field)
        assert "at most 3071 pixels in all" in told["message"]
        assert "64x48" in told["message"]
        assert await stack.bucket.entries("") == before
        assert (await taken(stack), await stack.frames.list(""), list(scratch.iterdir())) == ([], [], [])


@pytest.mark.parametrize(
    ("fields", "size", "options"),
    [
        ({"upscaling_scale": 2}, "128x96", UpscaleOptions(2)),
        # What there is memory for with weights that a request names, only the stage knows.
        ({"upscaling_model_path": "org/other"}, "256x192", UpscaleOptions(4, "org/other")),
    ],
)
async def test_a_finished_video_that_may_fit_is_accepted(stacks, video_card, fields, size: str, options) -> None:
    async with stacks(cards=(video_card, LIMITED)) as stack:
        body = {"video_id": await finished(stack), "enable_upscaling": True, **fields}
        answer = await stack.client.post(PATH, json=body)
        spec = await stack.jobs.spec(answer.json()["id"])

        assert (answer.status_code, answer.json()["size"]) == (200, size)
        assert spec.plan == Plan(StageName.INGEST, upscale=options)
        assert await taken(stack) == [spec.id]


async def test_how_large_an_uploaded_file_is_the_gateway_does_not_know(stacks, video_card) -> None:
    async with stacks(cards=(video_card, LIMITED)) as stack:
        answer = await stack.client.post(PATH, data=LARGER, files=form())

        assert (answer.status_code, answer.json()["size"]) == (200, None)
        assert await taken(stack) == [answer.json()["id"]]


async def test_a_side_that_no_video_can_have_is_refused(stack) -> None:
    def admitted(width: int) -> str:
        given = Given("a.mp4", 9, "video_id", video_id="video_1", known=Media(width, 16, Fraction(24), 1))
        fields = Fields({"enable_upscaling": True, "upscaling_scale": 4})
        return admit_enhancement(fields, given, stack.board.catalogue, "", SystemClock(), stack.settings).id

    assert admitted(4096)
    with pytest.raises(InvalidRequest, match="at most 16384 on a side") as told:
        admitted(4097)
    assert told.value.field == "upscaling_scale"


@pytest.mark.parametrize(
    ("switch", "worker"), [("enable_frame_interpolation", "interpolator"), ("enable_upscaling", "upscaler")]
)
async def test_without_a_worker_for_it_nothing_is_taken(stacks, video_card, scratch, switch: str, worker: str) -> None:
    async with stacks(cards=(video_card,)) as stack:
        answer = await stack.client.post(PATH, data={switch: "true"}, files=form())

        assert (answer.status_code, answer.json()["error"]["param"]) == (400, switch)
        assert f"no {worker} is installed" in answer.json()["error"]["message"]
        assert await is_untouched(stack, scratch)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_file_over_the_limit_is_refused_with_413(
    stacks, video_card, transforms, scratch, chunked: bool
) -> None:
    async with stacks(cards=(video_card, *transforms), max_upload_bytes=1 << 17, max_body_bytes=1 << 16) as stack:
        request = stack.client.build_request("POST", PATH, data=ON, files=form())
        if chunked:
            body = request.read()

            async def pieces():
                for at in range(0, len(body), 4096):
                    yield body[at : at + 4096]

            headers = {"content-type": request.headers["content-type"]}
            request = stack.client.build_request("POST", PATH, content=pieces(), headers=headers)
        answer = await stack.client.send(request)
        small = await stack.client.post(PATH, data=ON, files=form(content=CONTENT[: 100 * 1024]))
        # What is held in memory has the usual limit here as well.
        json_ = await stack.client.post(PATH, json={"video_id": "x" * (1 << 16)})

        assert (answer.status_code, small.status_code, json_.status_code) == (413, 200, 413)
        assert list(scratch.iterdir()) == []


async def test_a_form_with_too_much_beside_the_file_is_refused(stack, scratch: Path) -> None:
    long = await stack.client.post(PATH, data={**ON, "user": "x" * 70_000}, files=form())
    many = await stack.client.post(PATH, data={f"f{n}": "1" for n in range(150)}, files=form())

    assert (long.status_code, many.status_code) == (400, 400)
    assert "user is longer than 65536 bytes" in long.json()["error"]["message"]
    assert many.json()["error"]["message"] == "The form has more than 100 fields"
    assert await is_untouched(stack, scratch)


SWITCH = b'--b\r\nContent-Disposition: form-data; name="enable_frame_interpolation"\r\n\r\ntrue\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\nhalf a file'


@pytest.mark.parametrize("body", [b"", SWITCH, SWITCH + FILE, SWITCH + FILE + b"\r\n--b\r\n"])
async def test_a_form_that_ends_early_is_refused(stack, scratch: Path, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    cut = await stack.client.post(PATH, content=body, headers=headers)
    untouched = await is_untouched(stack, scratch)
    whole = await stack.client.post(PATH, content=SWITCH + FILE + b"\r\n--b--\r\n", headers=headers)

    assert (cut.status_code, cut.json()["error"]["message"]) == (400, "The multipart body ends early")
    assert untouched
    assert whole.status_code == 200


async def test_names_with_folders_lead_nowhere(stack) -> None:
    video = (await stack.client.post(PATH, data=ON, files=form("../../etc/passwd\\..\\clip.mp4"))).json()["id"]

    assert (await stack.jobs.spec(video)).ingest.name == "clip.mp4"


async def test_a_client_that_hangs_up_leaves_nothing(stack, scratch: Path) -> None:
    request = stack.client.build_request("POST", PATH, data=ON, files=form())
    body, sent = request.read(), []
    messages = [
        {"type": "http.request", "body": body[: len(body) // 2], "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict:
        await asyncio.sleep(0)
        return messages.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "raw_path": PATH.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"content-type", request.headers["content-type"].encode())],
        "http_version": "1.1",
        "server": ("gateway.test", 80),
        "client": ("client.test", 1),
    }
    await stack.app(scope, receive, send)

    assert sent[0]["status"] == 499
    assert await is_untouched(stack, scratch)


async def test_during_an_outage_of_the_store_nothing_is_accepted(stack, scratch: Path, monkeypatch) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(stack.frames, "put_file", away)
    answer = await stack.client.post(PATH, data=ON, files=form())

    assert answer.status_code == 503
    assert await is_untouched(stack, scratch)


async def test_the_openai_client_can_send_a_file(stack, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(CONTENT)
    async with AsyncOpenAI(
        base_url="http://gateway.test/v1", api_key="unused", http_client=stack.client, max_retries=0
    ) as client:
        with (tmp_path / "clip.mp4").open("rb") as file:
            video = await client.post(
                "/videos/enhance",
                cast_to=Video,
                body={"enable_frame_interpolation": True, "frame_interpolation_exp": 2},
                files={"video": file},
                options={"headers": {"Content-Type": "multipart/form-data"}},
            )

        assert (video.object, video.status, video.size) == ("video", "queued", None)
        assert (await stack.jobs.spec(video.id)).ingest.name == "clip.mp4"
