"""What every key-value bucket does, in whichever adapter."""

from __future__ import annotations

import pytest

from vitascope_core.errors import Conflict
from vitascope_core.ports import Entry, KeyValue
from vitascope_platform.kv_sqlite import SqliteFile


async def test_get_returns_what_was_put(bucket: KeyValue) -> None:
    revision = await bucket.put("a.b", b"1")

    assert await bucket.get("a.b") == Entry("a.b", b"1", revision)


async def test_get_of_an_unknown_key_is_none(bucket: KeyValue) -> None:
    assert await bucket.get("a") is None


async def test_create_refuses_a_key_that_exists(bucket: KeyValue) -> None:
    await bucket.create("a", b"1")

    with pytest.raises(Conflict):
        await bucket.create("a", b"2")

    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value == b"1"


async def test_update_needs_the_latest_revision(bucket: KeyValue) -> None:
    first = await bucket.create("a", b"1")
    second = await bucket.update("a", b"2", first)

    with pytest.raises(Conflict):
        await bucket.update("a", b"3", first)

    assert second > first
    assert await bucket.get("a") == Entry("a", b"2", second)


async def test_update_refuses_a_key_that_is_gone(bucket: KeyValue) -> None:
    revision = await bucket.create("a", b"1")
    await bucket.delete("a")

    with pytest.raises(Conflict):
        await bucket.update("a", b"2", revision)


async def test_a_revision_never_names_two_values_of_a_key(bucket: KeyValue) -> None:
    old = await bucket.create("a", b"1")
    await bucket.delete("a")
    await bucket.create("a", b"2")

    with pytest.raises(Conflict):
        await bucket.update("a", b"3", old)


async def test_delete_of_an_unknown_key_is_no_error(bucket: KeyValue) -> None:
    await bucket.delete("a")

    assert await bucket.get("a") is None


async def test_entries_are_those_of_the_prefix_sorted(bucket: KeyValue) -> None:
    for key in ("job2.spec", "job1.spec", "job1.chunk.0", "job10.spec"):
        await bucket.put(key, key.encode())

    assert [entry.key for entry in await bucket.entries("job1.")] == ["job1.chunk.0", "job1.spec"]
    assert len(await bucket.entries("")) == 4


async def test_watch_shows_what_is_there_then_a_mark_then_changes(bucket: KeyValue) -> None:
    await bucket.put("a.1", b"1")
    await bucket.put("b.1", b"other")
    seen: list[tuple[str, bytes | None] | None] = []
    async with bucket.watch("a.") as entries:
        for _ in range(2):
            entry = await anext(entries)
            seen.append(entry and (entry.key, entry.value))
        await bucket.put("a.2", b"2")
        await bucket.put("b.2", b"other")
        await bucket.delete("a.1")
        for _ in range(2):
            entry = await anext(entries)
            seen.append(entry and (entry.key, entry.value))

    assert seen == [("a.1", b"1"), None, ("a.2", b"2"), ("a.1", None)]


async def test_watch_tells_a_write_between_its_start_and_its_first_entry_once(bucket: KeyValue) -> None:
    async with bucket.watch("") as entries:
        await bucket.put("a", b"1")
        first, mark = await anext(entries), await anext(entries)
        await bucket.put("z", b"9")
        following = await anext(entries)

    assert (first and first.key, mark, following and following.key) == ("a", None, "z")


async def test_values_of_any_bytes_survive(bucket: KeyValue) -> None:
    value = bytes(range(256)) * 100
    await bucket.put("a", value)

    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value == value


async def test_sqlite_keeps_entries_and_revisions_over_a_restart(tmp_path) -> None:
    with SqliteFile(tmp_path / "kv.db") as file:
        revision = await file.bucket("jobs").create("a", b"1")
    with SqliteFile(tmp_path / "kv.db") as file:
        bucket = file.bucket("jobs")

        assert await bucket.get("a") == Entry("a", b"1", revision)
        assert await bucket.update("a", b"2", revision) > revision


async def test_sqlite_buckets_do_not_see_each_other(tmp_path) -> None:
    with SqliteFile(tmp_path / "kv.db") as file:
        await file.bucket("jobs").put("a", b"1")

        assert await file.bucket("cards").get("a") is None
