"""Every way of writing a body gives the same fields."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from vitascope_core.errors import InvalidRequest
from vitascope_gateway.bodies import read_fields

FORM = "application/x-www-form-urlencoded"


async def read(body: bytes, content_type: str | None = None):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    return await read_fields(Request({"type": "http", "method": "POST", "headers": headers}, receive), 22_000_000)


async def values(body: bytes, content_type: str) -> dict:
    return dict((await read(body, content_type))._values)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"prompt": "a", "n": 2, "x": null}', "application/json"),
        (b'\xef\xbb\xbf{"prompt": "a", "n": 2}', "application/json; charset=utf-8"),
        (b'{"prompt": "a", "n": 2}', "application/vnd.api+json"),
        (b'{"prompt": "a", "n": 2}', None),
        (b'{"prompt": "a", "n": 2}', "text/plain"),
        (b'{"prompt": "a", "n": 2}', FORM),
        (b"prompt=a&n=2", FORM),
        (
            b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\r\n'
            b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n2\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
    ],
)
async def test_all_encodings_give_the_same_fields(body, content_type) -> None:
    fields = await read(body, content_type)

    assert (fields.text("prompt"), fields.integer("n"), sorted(fields)) == ("a", 2, ["n", "prompt"])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"a[b]=1", {"a": {"b": "1"}}),
        (b"a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
        (b"a[]=1&a[]=2", {"a": ["1", "2"]}),
        (b"a[]=1", {"a": ["1"]}),
        (b"a[0]=1&a[1]=2", {"a": ["1", "2"]}),
        (b"a=1&a=2&a=3", {"a": ["1", "2", "3"]}),
        (b"a[][x]=1&a[][y]=2&a[][x]=3", {"a": [{"x": "1", "y": "2"}, {"x": "3"}]}),
        (b"a[0][x]=1&a[1][x]=2&a[0][y]=3", {"a": [{"x": "1", "y": "3"}, {"x": "2"}]}),
        (b"a%5Bb%5D=%C3%BC", {"a": {"b": "ü"}}),
        (b"a[b=1", {"a[b": "1"}),
        (b"a=", {"a": ""}),
    ],
)
async def test_bracket_keys_become_objects_and_lists(body, expected) -> None:
    assert await values(body, FORM) == expected


@pytest.mark.parametrize(
    "body", [b"a[b]=1&a[b]=2", b"a[b]=1&a=2", b"a=1&a[b]=2", b"a=1&a[]=2", b"a[]=1&a[b]=2", b"a" + b"[b]" * 9 + b"=1"]
)
async def test_contradicting_keys_are_refused(body) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await read(body, FORM)

    assert refusal.value.field.startswith("a")


@pytest.mark.parametrize("wrapper", ["extra_body", "extra_json", "extra_params", "extra_args"])
async def test_wrapped_fields_count_and_the_top_level_wins(wrapper) -> None:
    inner = b'{"seed": 7, "n": 3, "x": null}'
    as_object = await values(b'{"n": 2, "%s": %s}' % (wrapper.encode(), inner), "application/json")
    as_text = await read(wrapper.encode() + b"=" + inner + b"&n=2", FORM)
    as_keys = await read(wrapper.encode() + b"[seed]=7&n=2", FORM)

    assert as_object == {"n": 2, "seed": 7}
    assert (as_text.integer("n"), as_text.integer("seed")) == (2, 7)
    assert (as_keys.integer("n"), as_keys.integer("seed")) == (2, 7)


@pytest.mark.parametrize("word", ["true", "True", "1", "yes", "ON", " true "])
async def test_forms_say_true_in_many_ways(word) -> None:
    assert (await read(b"a=" + word.encode(), FORM)).flag("a") is True


@pytest.mark.parametrize("word", ["false", "FALSE", "0", "no", "off"])
async def test_forms_say_false_in_many_ways(word) -> None:
    assert (await read(b"a=" + word.encode(), FORM)).flag("a") is False


async def test_an_empty_form_value_is_absent_where_a_number_is_read_but_is_a_text() -> None:
    fields = await read(b"n=&flag=&size=&negative_prompt=&seed=", FORM)

    assert fields.integer("n") is None
    assert fields.flag("flag") is None
    assert fields.choice("size", ("a",)) is None
    assert fields.integers("seed") is None
    assert fields.text("negative_prompt") == ""


@pytest.mark.parametrize("body", [b"seed=1&seed=2", b"seed[]=1&seed[]=2", b"seed=[1, 2]"])
async def test_forms_write_lists_in_three_ways(body) -> None:
    assert (await read(body, FORM)).integers("seed") == (1, 2)


async def test_a_text_part_of_twenty_mebibytes_is_read() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="input_reference[image_url]"\r\n\r\n'
        + b"x" * 20 * 1024 * 1024
        + b"\r\n--b--\r\n"
    )
    found = await values(body, "multipart/form-data; boundary=b")

    assert len(found["input_reference"]["image_url"]) == 20 * 1024 * 1024
