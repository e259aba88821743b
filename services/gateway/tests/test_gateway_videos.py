"""The Video object, lists, content, health and errors over HTTP."""

from __future__ import annotations

import pytest

from vitascope_core.errors import StoreUnavailable
from vitascope_core.job import EndState, JobEnd, SourceRecord

PROMPT = {"prompt": "a cat"}
KEYS = {
    "id", "object", "model", "status", "progress", "created_at", "completed_at", "expires_at", "prompt", "size",
    "seconds", "remixed_from_video_id", "error",
}  # fmt: skip


async def create(stack, **fields) -> dict:
    answer = await stack.client.post("/v1/videos", json={**PROMPT, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def finished(stack, **fields) -> str:
    video = (await create(stack, **fields))["id"]
    await stack.complete(video, seconds={"denoise": 1.23456}, attempts=1, frames=9, bytes=10)
    await stack.settled(lambda: (view := stack.board.job(video)) and view.end)
    return video


async def test_a_video_from_creation_to_completion(stack) -> None:
    made = await stack.client.post("/v1/videos", json={**PROMPT, "seed": 7, "size": "128x96"})
    video = made.json()["id"]
    await stack.jobs.swap_source(video, SourceRecord(1, "w", step=2, steps=4), None)
    await stack.settled(lambda: (view := stack.board.job(video)) and view.source)
    running = await stack.client.get(f"/v1/videos/{video}")
    await stack.complete(video, seconds={"denoise": 1.23456}, attempts=1, frames=9, bytes=10)
    await stack.settled(lambda: stack.board.job(video).end)
    done = await stack.client.get(f"/v1/videos/{video}")

    assert made.json() | running.json() == running.json() | {"n": 1}
    assert set(made.json()) >= KEYS
    for answer, status, progress in [(made, "queued", 0), (running, "in_progress", 40), (done, "completed", 100)]:
        body = answer.json()
        assert (body["status"], body["progress"], body["error"]) == (status, progress, None)
        assert (body["object"], body["prompt"], body["size"], body["seed"]) == ("video", "a cat", "128x96", 7)
        assert (body["seconds"], body["num_frames"], body["fps"]) == ("1", 9, 16)
        assert type(body["created_at"]) is type(body["progress"]) is int
        assert answer.headers.get("openai-poll-after-ms") == (None if status == "completed" else "1000")
    assert (running.json()["completed_at"], running.json()["expires_at"], running.json()["usage"]) == (None,) * 3
    assert done.json()["completed_at"] == made.json()["created_at"] + 5
    assert done.json()["expires_at"] == done.json()["completed_at"] + 604800
    assert done.json()["usage"]["seconds"] == {"denoise": 1.235}


async def test_a_failed_video_is_an_answer_not_an_error(stack) -> None:
    video = (await create(stack))["id"]
    await stack.jobs.create_end(video, JobEnd(EndState.FAILED, "t", 1, code="out_of_memory", message="no memory"))
    await stack.settled(lambda: (view := stack.board.job(video)) and view.end)
    answer = await stack.client.get(f"/v1/videos/{video}")

    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["completed_at"]) == ("failed", None)
    assert answer.json()["error"] == {"code": "out_of_memory", "message": "no memory"}
    assert (await stack.client.get(f"/v1/videos/{video}/content")).status_code == 404


async def test_size_seconds_and_frames_are_those_of_the_finished_file(stacks, video_card, transforms) -> None:
    async with stacks(cards=(video_card, *transforms)) as stack:
        options = {"enable_frame_interpolation": True, "enable_upscaling": True, "upscaling_scale": 2}
        video = await create(stack, num_frames=33, fps=16, n=2, seed=5, **options)

    assert (video["size"], video["seconds"], video["num_frames"], video["fps"]) == ("128x96", "2", 65, 32)
    assert (video["seed"], video["n"]) == ([5, 6], 2)


async def test_a_list_has_pages(stack) -> None:
    ids = [(await create(stack))["id"] for _ in range(5)]
    await stack.settled(lambda: stack.board.job(ids[-1]))

    async def page(query: str) -> tuple:
        body = (await stack.client.get(f"/v1/videos{query}")).json()
        assert body["object"] == "list"
        assert set(body) == {"object", "data", "first_id", "last_id", "has_more"}
        assert set(body["data"][0] if body["data"] else KEYS) >= KEYS
        return [v["id"] for v in body["data"]], body["first_id"], body["last_id"], body["has_more"]

    assert await page("") == (ids[::-1], ids[4], ids[0], False)
    assert await page("?limit=2") == ([ids[4], ids[3]], ids[4], ids[3], True)
    assert await page(f"?limit=2&after={ids[3]}") == ([ids[2], ids[1]], ids[2], ids[1], True)
    assert await page(f"?limit=2&after={ids[1]}") == ([ids[0]], ids[0], ids[0], False)
    assert await page(f"?order=asc&limit=3&after={ids[0]}") == (ids[1:4], ids[1], ids[3], True)
    assert await page(f"?after={ids[0]}") == ([], None, None, False)
    assert await page("?limit=0") == ([], None, None, True)


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-99", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=9-", 206, b"9", "bytes 9-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=99-100", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("bytes=a-b", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("frames=0-1", 200, b"0123456789", None),
        ("bytes=" + "9" * 50 + "-", 200, b"0123456789", None),
    ],
)
async def test_a_range_is_answered_with_a_part(stack, header, status, body, content_range) -> None:
    video = await finished(stack)
    headers = {} if header is None else {"range": header}

    got = await stack.client.get(f"/v1/videos/{video}/content", headers=headers)
    head = await stack.client.head(f"/v1/videos/{video}/content", headers=headers)

    assert (got.status_code, got.headers.get("content-range")) == (status, content_range)
    assert (head.status_code, head.headers.get("content-range")) == (status, content_range)
    if body is None:
        assert got.json()["error"]["type"] == "invalid_request_error"
        return
    assert got.content == body
    assert head.content == b""
    for answer in (got, head):
        assert answer.headers["content-length"] == str(len(body))
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "video/mp4"


async def test_a_part_of_another_file_is_answered_with_the_whole(stack) -> None:
    video = await finished(stack)
    url = f"/v1/videos/{video}/content"
    etag = (await stack.client.head(url)).headers["etag"]

    same = await stack.client.get(url, headers={"range": "bytes=0-0", "if-range": etag})
    other = await stack.client.get(url, headers={"range": "bytes=0-0", "if-range": '"x"'})

    assert (same.status_code, other.status_code) == (206, 200)


async def test_a_file_larger_than_a_piece_arrives_whole(stack) -> None:
    video = (await create(stack))["id"]
    content = bytes(range(256)) * 4096
    await stack.complete(video, content)
    await stack.settled(lambda: stack.board.job(video).end)

    whole = await stack.client.get(f"/v1/videos/{video}/content")
    part = await stack.client.get(f"/v1/videos/{video}/content", headers={"range": "bytes=300000-900000"})

    assert whole.content == content
    assert part.content == content[300000:900001]


@pytest.mark.parametrize(
    ("variant", "status", "content_type"),
    [
        ("video", 200, "video/mp4"),
        ("0", 200, "video/mp4"),
        ("1", 200, "video/mp4"),
        ("thumbnail", 200, "image/webp"),
        ("spritesheet", 200, "image/jpeg"),
        ("2", 404, "application/json"),
        ("image", 400, "application/json"),
        ("-1", 400, "application/json"),
        ("\u0661", 400, "application/json"),
    ],
)
async def test_content_has_variants(stack, variant, status, content_type) -> None:
    video = await finished(stack, n=2)
    answer = await stack.client.get(f"/v1/videos/{video}/content", params={"variant": variant})

    assert (answer.status_code, answer.headers["content-type"]) == (status, content_type)
    if status == 400:
        assert answer.json()["error"]["param"] == "variant"


async def test_content_that_is_not_there_is_404(stack) -> None:
    queued, done = (await create(stack))["id"], await finished(stack)
    await stack.results.delete_prefix("")

    for video, text in [(queued, "not ready yet"), (done, "no longer available"), ("video_" + "0" * 32, "not found")]:
        answer = await stack.client.get(f"/v1/videos/{video}/content")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, None)
        assert text in answer.json()["error"]["message"]


async def test_a_store_that_is_away_is_an_outage_not_half_a_file(stack, monkeypatch) -> None:
    video = await finished(stack)

    async def read(key, start=0, length=None):
        raise StoreUnavailable("timed out")
        yield b""

    monkeypatch.setattr(stack.results, "read", read)
    answer = await stack.client.get(f"/v1/videos/{video}/content")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("job_id", ["%00", "%F0%9F%98%80", "x" * 500, "video_1", "a.b", "..%2F", "%ED%A0%80"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/videos/{}"),
        ("DELETE", "/v1/videos/{}"),
        ("GET", "/v1/videos/{}/content"),
        ("GET", "/v1/images/{}/content"),
    ],
)
async def test_an_odd_id_is_unknown(stack, method, path, job_id) -> None:
    answer = await stack.client.request(method, path.format(job_id))

    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_ids_of_the_other_kind_are_unknown(stack) -> None:
    video = await finished(stack)

    assert (await stack.client.get(f"/v1/images/{video}/content")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/v1/videos/", 404),
        ("POST", "/v1/nope", 404),
        ("PUT", "/v1/videos", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/images/generations", 405),
        ("POST", "/v1/videos/x/content", 405),
    ],
)
async def test_unknown_routes_and_methods_have_the_envelope(stack, method, path, status) -> None:
    answer = await stack.client.request(method, path)

    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    assert ("allow" in answer.headers) == (status == 405)


async def test_a_bug_is_logged_and_gives_nothing_away(stack, monkeypatch, caplog) -> None:
    monkeypatch.setattr(stack.board, "videos", None)
    answer = await stack.client.get("/v1/videos", headers={"x-request-id": "mine-1"})

    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["error"] == {
        "message": "The server had an error while processing the request",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    assert "NoneType" not in answer.text
    assert "TypeError" in caplog.text


async def test_every_response_has_a_request_id(stack) -> None:
    fresh = [(await stack.client.get("/livez")).headers["x-request-id"] for _ in range(2)]
    odd = (await stack.client.get("/livez", headers={"x-request-id": "a b\t<"})).headers["x-request-id"]

    assert len({*fresh, odd}) == 3
    assert all(request_id.startswith("req_") for request_id in (*fresh, odd))


async def test_models_are_listed_and_found_by_id_and_alias(stack) -> None:
    listed = (await stack.client.get("/v1/models")).json()
    one = await stack.client.get("/v1/models/org%2Fclips")
    alias = await stack.client.get("/v1/models/sora-2")
    none = await stack.client.get("/v1/models/nope")

    assert [model["id"] for model in listed["data"]] == ["org/clips", "stills"]
    assert listed["object"] == "list"
    assert one.json() == alias.json() == listed["data"][0]
    assert (one.json()["object"], one.json()["created"], one.json()["owned_by"]) == (
        "model",
        1_700_000_000,
        "vitascope",
    )
    error = none.json()["error"]
    assert (none.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")


async def test_health_follows_the_board(stack) -> None:
    for path in ("/livez", "/readyz", "/health"):
        assert (await stack.client.get(path)).json() == {"status": "ok"}

    stack.board._live.clear()
    assert [(await stack.client.get(p)).status_code for p in ("/livez", "/readyz", "/health")] == [200, 503, 503]
    stack.board._tasks[0].cancel()
    await stack.settled(lambda: not stack.board.alive)
    assert (await stack.client.get("/livez")).status_code == 503


async def test_a_gateway_that_has_not_heard_the_cards_is_not_ready_rather_than_empty(stacks) -> None:
    async with stacks(cards=()) as stack:
        assert (await stack.client.post("/v1/videos", json=PROMPT)).status_code == 400
        stack.board._live.clear()
        assert (await stack.client.post("/v1/videos", json=PROMPT)).status_code == 503
        assert (await stack.client.get("/v1/models")).status_code == 503


async def test_browsers_may_call_from_the_origins_that_are_set(stacks) -> None:
    preflight = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, x-stainless-lang",
    }
    async with stacks(cors_origins="https://app.example") as stack:
        allowed = await stack.client.options("/v1/videos", headers=preflight)
        answer = await stack.client.get("/v1/videos", headers={"origin": "https://app.example"})

    assert allowed.status_code == 200
    assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "openai-poll-after-ms" in answer.headers["access-control-expose-headers"]


async def test_the_api_describes_itself(stack) -> None:
    described = (await stack.client.get("/openapi.json")).json()

    assert {"/v1/videos", "/v1/videos/{video_id}/content", "/v1/images/generations"} <= set(described["paths"])
    assert (await stack.client.get("/docs")).status_code == 200
