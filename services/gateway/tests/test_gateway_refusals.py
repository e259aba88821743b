"""Bad requests are refused before anything is stored or queued, with the field named."""

from __future__ import annotations

import asyncio
import json

import pytest

GOOD = {"prompt": "a cat"}
INTERPOLATE = {"enable_frame_interpolation": True}

VIDEO_REFUSALS = [
    # fields, status, code, param
    ({}, 400, "missing_required_parameter", "prompt"),
    ({"prompt": None}, 400, "missing_required_parameter", "prompt"),
    ({"prompt": ""}, 400, "invalid_value", "prompt"),
    ({"prompt": "  \n"}, 400, "invalid_value", "prompt"),
    ({"prompt": 5}, 400, "invalid_type", "prompt"),
    ({"prompt": ["a"]}, 400, "invalid_type", "prompt"),
    ({"prompt": "x" * 201}, 400, "invalid_value", "prompt"),
    ({**GOOD, "negative_prompt": "x" * 201}, 400, "invalid_value", "negative_prompt"),
    ({**GOOD, "model": "org/none"}, 404, "model_not_found", "model"),
    ({**GOOD, "model": "stills"}, 400, "invalid_value", "model"),
    ({**GOOD, "model": 7}, 400, "invalid_type", "model"),
    ({**GOOD, "size": "64"}, 400, "invalid_value", "size"),
    ({**GOOD, "size": "0x64"}, 400, "invalid_value", "size"),
    ({**GOOD, "size": "65x64"}, 400, "invalid_value", "size"),
    ({**GOOD, "size": "64x1024"}, 400, "invalid_value", "size"),
    ({**GOOD, "size": 64}, 400, "invalid_type", "size"),
    ({**GOOD, "width": 60}, 400, "invalid_value", "width"),
    ({**GOOD, "height": "64"}, 400, "invalid_type", "height"),
    ({**GOOD, "size": "64x64", "width": 128}, 400, "invalid_value", "width"),
    ({**GOOD, "size": "64x64", "height": 128}, 400, "invalid_value", "height"),
    ({**GOOD, "size": "512x512", "num_frames": 81}, 400, "invalid_value", "num_frames"),
    ({**GOOD, "num_frames": 10}, 400, "invalid_value", "num_frames"),
    ({**GOOD, "num_frames": 1}, 400, "invalid_value", "num_frames"),
    ({**GOOD, "num_frames": True}, 400, "invalid_type", "num_frames"),
    ({**GOOD, "num_frames": 9.5}, 400, "invalid_type", "num_frames"),
    ({**GOOD, "seconds": "20"}, 400, "invalid_value", "seconds"),
    ({**GOOD, "seconds": "0"}, 400, "invalid_value", "seconds"),
    ({**GOOD, "seconds": 0.1}, 400, "invalid_value", "seconds"),
    ({**GOOD, "seconds": "four"}, 400, "invalid_type", "seconds"),
    ({**GOOD, "seconds": "nan"}, 400, "invalid_value", "seconds"),
    ({**GOOD, "fps": 0}, 400, "invalid_value", "fps"),
    ({**GOOD, "fps": 1000}, 400, "invalid_value", "fps"),
    ({**GOOD, "fps": "16"}, 400, "invalid_type", "fps"),
    ({**GOOD, "num_inference_steps": 0}, 400, "invalid_value", "num_inference_steps"),
    ({**GOOD, "num_inference_steps": 51}, 400, "invalid_value", "num_inference_steps"),
    ({**GOOD, "guidance_scale": -1}, 400, "invalid_value", "guidance_scale"),
    ({**GOOD, "guidance_scale": "high"}, 400, "invalid_type", "guidance_scale"),
    ({**GOOD, "guidance_scale_2": 3.0}, 400, "unsupported_parameter", "guidance_scale_2"),
    ({**GOOD, "n": 0}, 400, "invalid_value", "n"),
    ({**GOOD, "n": 4}, 400, "invalid_value", "n"),
    ({**GOOD, "n": "abc"}, 400, "invalid_type", "n"),
    ({**GOOD, "n": True}, 400, "invalid_type", "n"),
    ({**GOOD, "n": 2, "num_outputs_per_prompt": 1}, 400, "invalid_value", "num_outputs_per_prompt"),
    ({**GOOD, "seed": -1}, 400, "invalid_value", "seed"),
    ({**GOOD, "seed": 2**63}, 400, "invalid_value", "seed"),
    ({**GOOD, "seed": 2**63 - 1, "n": 2}, 400, "invalid_value", "seed"),
    ({**GOOD, "seed": [1, 2], "n": 3}, 400, "invalid_value", "seed"),
    ({**GOOD, "seed": []}, 400, "invalid_value", "seed"),
    ({**GOOD, "seed": [1, "b"]}, 400, "invalid_type", "seed[1]"),
    ({**GOOD, "seed": [1, -2]}, 400, "invalid_value", "seed[1]"),
    ({**GOOD, "quality": "superb"}, 400, "invalid_value", "quality"),
    ({**GOOD, "output_quality": "superb"}, 400, "invalid_value", "output_quality"),
    ({**GOOD, "output_compression": 101}, 400, "invalid_value", "output_compression"),
    ({**GOOD, "output_compression": 5}, 400, "invalid_value", "output_compression"),
    ({**GOOD, "output_format": "gif"}, 400, "invalid_value", "output_format"),
    ({**GOOD, "chunk_frames": 0}, 400, "invalid_value", "chunk_frames"),
    ({**GOOD, "chunk_frames": 10}, 400, "invalid_value", "chunk_frames"),
    ({**GOOD, "task_type": "I2V"}, 400, "unsupported_parameter", "task_type"),
    ({**GOOD, "enable_frame_interpolation": True}, 400, "unsupported_parameter", "enable_frame_interpolation"),
    ({**GOOD, "enable_upscaling": True}, 400, "unsupported_parameter", "enable_upscaling"),
    ({**GOOD, "enable_upscaling": 1}, 400, "invalid_type", "enable_upscaling"),
    ({**GOOD, "upscaling_scale": 2}, 400, "unsupported_parameter", "upscaling_scale"),
    ({**GOOD, "upscaling_model_path": "org/x4"}, 400, "unsupported_parameter", "upscaling_model_path"),
    ({**GOOD, "input_reference": {"image_url": "data:,"}}, 400, "unsupported_parameter", "input_reference"),
    ({**GOOD, "reference_url": "http://10.0.0.1/"}, 400, "unsupported_parameter", "reference_url"),
    ({**GOOD, "output_path": "/etc"}, 400, "unsupported_parameter", "output_path"),
    ({**GOOD, "perf_dump_path": "/tmp/x"}, 400, "unsupported_parameter", "perf_dump_path"),
    ({**GOOD, "profile": True}, 400, "unsupported_parameter", "profile"),
    ({**GOOD, "stream": True}, 400, "unsupported_parameter", "stream"),
    ({**GOOD, "previews": 11}, 400, "invalid_value", "previews"),
    ({**GOOD, "previews": 2}, 400, "unsupported_parameter", "previews"),
    ({**GOOD, "true_cfg_scale": 3}, 400, "unsupported_parameter", "true_cfg_scale"),
    ({**GOOD, "guidence_scale": 3}, 400, "unknown_parameter", "guidence_scale"),
    ({**GOOD, "extra_body": 5}, 400, "invalid_type", "extra_body"),
    ({**GOOD, "extra_body": "{"}, 400, "invalid_value", "extra_body"),
    ({**GOOD, "extra_body": {"n": 9}}, 400, "invalid_value", "n"),
]

IMAGE_REFUSALS = [
    ({}, 400, "missing_required_parameter", "prompt"),
    ({**GOOD, "n": 11}, 400, "invalid_value", "n"),
    ({**GOOD, "n": 0}, 400, "invalid_value", "n"),
    ({**GOOD, "model": "org/clips"}, 400, "invalid_value", "model"),
    ({**GOOD, "model": "dall-e-9"}, 404, "model_not_found", "model"),
    ({**GOOD, "background": "transparent"}, 400, "unsupported_parameter", "background"),
    ({**GOOD, "background": "green"}, 400, "invalid_value", "background"),
    ({**GOOD, "output_format": "svg"}, 400, "invalid_value", "output_format"),
    ({**GOOD, "response_format": "file"}, 400, "invalid_value", "response_format"),
    ({**GOOD, "output_compression": -1}, 400, "invalid_value", "output_compression"),
    ({**GOOD, "output_compression": 50}, 400, "invalid_value", "output_compression"),
    ({**GOOD, "stream": True, "n": 2}, 400, "invalid_value", "n"),
    ({**GOOD, "partial_images": 4, "stream": True}, 400, "invalid_value", "partial_images"),
    ({**GOOD, "partial_images": 2, "stream": True}, 400, "unsupported_parameter", "partial_images"),
    ({**GOOD, "previews": 2}, 400, "unsupported_parameter", "previews"),
    ({**GOOD, "negative_prompt": "dogs"}, 400, "unsupported_parameter", "negative_prompt"),
    ({**GOOD, "guidance_scale": 2}, 400, "unsupported_parameter", "guidance_scale"),
    ({**GOOD, "num_frames": 5}, 400, "invalid_value", "num_frames"),
    ({**GOOD, "seconds": "4"}, 400, "unsupported_parameter", "seconds"),
    ({**GOOD, "enable_frame_interpolation": True}, 400, "unsupported_parameter", "enable_frame_interpolation"),
    ({**GOOD, "frame_interpolation_exp": 1}, 400, "unsupported_parameter", "frame_interpolation_exp"),
    ({**GOOD, "image": "data:image/png;base64,"}, 400, "unsupported_parameter", "image"),
    ({**GOOD, "mask": {"file_id": "f"}}, 400, "unsupported_parameter", "mask"),
]


def shown(fields: dict) -> str:
    return json.dumps(fields)[:60]


async def assert_refused(stack, response, status, code, param) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param), error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert response.json()["detail"] == error["message"]
    assert response.headers["x-request-id"]
    assert await stack.is_untouched()


@pytest.mark.parametrize(("fields", "status", "code", "param"), VIDEO_REFUSALS, ids=lambda v: shown(v)[:60])
async def test_a_bad_video_request_is_refused(stack, fields, status, code, param) -> None:
    await assert_refused(stack, await stack.client.post("/v1/videos", json=fields), status, code, param)


@pytest.mark.parametrize(("fields", "status", "code", "param"), IMAGE_REFUSALS, ids=lambda v: shown(v)[:60])
async def test_a_bad_image_request_is_refused(stack, fields, status, code, param) -> None:
    await assert_refused(stack, await stack.client.post("/v1/images/generations", json=fields), status, code, param)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"n": "abc"}, "invalid_type", "n"),
        ({"n": "1.5"}, "invalid_type", "n"),
        ({"num_frames": "9999999999999999999999"}, "invalid_type", "num_frames"),
        ({"guidance_scale": "inf"}, "invalid_value", "guidance_scale"),
        ({"enable_upscaling": "maybe"}, "invalid_type", "enable_upscaling"),
        ({"input_reference[image_url]": "data:,"}, "unsupported_parameter", "input_reference"),
        ({"seed[]": ["1", "x"]}, "invalid_type", "seed[1]"),
        ({"size": ["64x64", "64x48"]}, "invalid_type", "size"),
        ({"size": "64x64", "size[a]": "1"}, "invalid_value", "size"),
        ({"extra_body": "[1]"}, "invalid_value", "extra_body"),
        ({"model[a]": "1"}, "invalid_type", "model"),
    ],
    ids=shown,
)
@pytest.mark.parametrize("encoding", ["urlencoded", "multipart"])
async def test_a_bad_form_is_refused(stack, fields, code, param, encoding) -> None:
    # An empty file field makes httpx encode as multipart; an absent value of a known field says nothing.
    files = {"files": {"user": (None, "")}} if encoding == "multipart" else {}
    response = await stack.client.post("/v1/videos", data={"prompt": "a cat", **fields}, **files)

    assert response.request.headers["content-type"].startswith(
        "multipart/form-data" if encoding == "multipart" else "application/x-www-form-urlencoded"
    )
    await assert_refused(stack, response, 400, code, param)


@pytest.mark.parametrize("field", ["input_reference", "prompt", "photo"])
async def test_a_file_is_refused_where_none_is_taken(stack, field) -> None:
    response = await stack.client.post("/v1/videos", data={"size": "64x64"}, files={field: ("a.png", b"\x89PNG")})

    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"] == ("prompt" if field == "prompt" else field)
    assert await stack.is_untouched()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b'{"prompt": "a", "n": NaN}', "application/json"),
        (b"[1, 2]", "application/json"),
        (b'"prompt"', "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"prompt": "\\ud800"}', "application/json"),
        (b'{"prompt": "\xed\xa0\x80"}', "application/json"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"prompt=a", "text/plain"),
        (b"prompt=a", "text/html"),
        (b"prompt=%FF", "application/x-www-form-urlencoded"),
        (b"a=1&" * 1500, "application/x-www-form-urlencoded"),
        (b"x", "multipart/form-data"),
        (b"nonsense", "multipart/form-data; boundary=b"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(stack, body, content_type) -> None:
    response = await stack.client.post("/v1/videos", content=body, headers={"content-type": content_type})

    assert response.json()["error"]["type"] == "invalid_request_error"
    await assert_refused(stack, response, 400, None, None)


async def test_an_unknown_field_is_answered_with_its_nearest_match(stack) -> None:
    response = await stack.client.post("/v1/videos", json={**GOOD, "guidence_scale": 3})

    assert "did you mean guidance_scale" in response.json()["error"]["message"]


async def test_a_body_over_the_limit_is_refused_before_it_is_read(stacks) -> None:
    async with stacks(max_body_bytes=64 * 1024) as stack:
        sent = 0

        async def pieces(head: bytes = b""):
            nonlocal sent
            yield head
            for _ in range(1000):
                sent += 4096
                yield b" " * 4096

        told = await stack.client.post("/v1/videos", content=b" " * 70_000)
        untold = await stack.client.post("/v1/videos", content=pieces())
        form = {"content-type": "multipart/form-data; boundary=b"}
        part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        formed = await stack.client.post("/v1/videos", content=pieces(part), headers=form)

        assert sent < 2 * 100_000
        for response in (told, untold, formed):
            await assert_refused(stack, response, 413, None, None)


async def test_a_body_that_says_it_is_too_large_is_not_read_at_all(stack) -> None:
    sent = []

    async def receive():
        raise AssertionError("read")

    async def send(message):
        sent.append(message)

    length = str(stack.settings.max_body_bytes + 1).encode()
    headers = [(b"content-length", length), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/videos", "headers": headers, "query_string": b""}
    await stack.app(scope, receive, send)

    assert sent[0]["status"] == 413


async def test_a_request_without_a_model_names_the_choices(stacks, video_card) -> None:
    from dataclasses import replace

    other = replace(video_card, pool="more", id="org/more", aliases=())
    async with stacks(cards=(video_card, other)) as stack:
        video = await stack.client.post("/v1/videos", json=GOOD)
        image = await stack.client.post("/v1/images/generations", json=GOOD)

        await assert_refused(stack, video, 400, "missing_required_parameter", "model")
        assert "org/clips" in video.json()["error"]["message"]
        assert "org/more" in video.json()["error"]["message"]
        await assert_refused(stack, image, 400, "missing_required_parameter", "model")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({**INTERPOLATE, "frame_interpolation_exp": 3}, "invalid_value", "frame_interpolation_exp"),
        ({**INTERPOLATE, "frame_interpolation_exp": True}, "invalid_type", "frame_interpolation_exp"),
        ({**INTERPOLATE, "frame_interpolation_scale": 3}, "invalid_value", "frame_interpolation_scale"),
        (
            {**INTERPOLATE, "frame_interpolation_model_path": "https://x/y"},
            "invalid_value",
            "frame_interpolation_model_path",
        ),
        (
            {**INTERPOLATE, "frame_interpolation_model_path": "/weights"},
            "invalid_value",
            "frame_interpolation_model_path",
        ),
        (
            {**INTERPOLATE, "frame_interpolation_model_path": 5},
            "invalid_type",
            "frame_interpolation_model_path",
        ),
        (
            {"frame_interpolation_model_path": "org/rife"},
            "unsupported_parameter",
            "frame_interpolation_model_path",
        ),
        (
            {"enable_upscaling": True, "upscaling_model_path": "org/x4"},
            "unsupported_parameter",
            "upscaling_model_path",
        ),
        ({"enable_upscaling": True, "upscaling_scale": 3}, "invalid_value", "upscaling_scale"),
        ({"enable_upscaling": True, "upscaling_scale": 1.5}, "invalid_value", "upscaling_scale"),
        ({"enable_upscaling": True, "upscaling_scale": True}, "invalid_type", "upscaling_scale"),
        ({"enable_upscaling": True, "upscaling_scale": "2"}, "invalid_type", "upscaling_scale"),
        ({"enable_upscaling": False, "upscaling_scale": "2"}, "invalid_type", "upscaling_scale"),
        ({"frame_interpolation_exp": 1}, "unsupported_parameter", "frame_interpolation_exp"),
    ],
    ids=shown,
)
async def test_options_of_transforms_are_held_against_their_cards(stacks, video_card, transforms, fields, code, param):
    async with stacks(cards=(video_card, *transforms)) as stack:
        response = await stack.client.post("/v1/videos", json={**GOOD, **fields})

        await assert_refused(stack, response, 400, code, param)


@pytest.mark.parametrize("query", ["limit=101", "limit=-1", "limit=many", "order=up", "after=nonsense"])
async def test_a_bad_list_query_is_refused(stack, query) -> None:
    response = await stack.client.get(f"/v1/videos?{query}")

    assert response.status_code == 400
    assert response.json()["error"]["param"] == query.partition("=")[0]


async def test_a_refusal_never_takes_the_status_of_something_to_repeat(stack) -> None:
    requests = [stack.client.post("/v1/videos", json=fields) for fields, *_ in VIDEO_REFUSALS]

    statuses = {response.status_code for response in await asyncio.gather(*requests)}

    assert statuses <= {400, 404}
