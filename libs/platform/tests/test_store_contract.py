"""What every object store does, in whichever adapter."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest

from vitascope_core.errors import ObjectMissing
from vitascope_core.ports import ObjectInfo, ObjectStore
from vitascope_platform.store_local import LocalStore


async def read(store: ObjectStore, key: str, *args: int) -> bytes:
    return b"".join([piece async for piece in store.read(key, *args)])


async def test_get_returns_what_was_put_last(store: ObjectStore) -> None:
    await store.put("jobs/1/a", b"old")
    await store.put("jobs/1/a", memoryview(b"new"))

    assert await store.get("jobs/1/a") == b"new"


async def test_an_object_that_is_not_there_is_missing(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        await store.get("jobs/1/a")
    with pytest.raises(ObjectMissing):
        await read(store, "jobs/1/a")

    assert await store.stat("jobs/1/a") is None


async def test_a_prefix_is_not_an_object(store: ObjectStore) -> None:
    await store.put("jobs/1/a", b"1")

    with pytest.raises(ObjectMissing):
        await store.get("jobs/1")


async def test_put_file_stores_the_content(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    await store.put_file("r/1", path)

    assert await store.get("r/1") == b"content"
    assert await store.stat("r/1") == ObjectInfo("r/1", 7)


async def test_read_yields_the_range_asked_for(store: ObjectStore) -> None:
    data = bytes(range(256)) * 4096
    await store.put("a/b", data)

    assert await read(store, "a/b") == data
    assert await read(store, "a/b", 1000, 300_000) == data[1000:301_000]
    assert await read(store, "a/b", len(data) - 3) == data[-3:]
    assert await read(store, "a/b", len(data), 5) == b""
    assert await read(store, "a/b", 5, 0) == b""


async def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    await store.put("a/b", b"")

    assert (await store.get("a/b"), await read(store, "a/b"), await read(store, "a/b", 0, 4)) == (b"", b"", b"")
    assert await store.stat("a/b") == ObjectInfo("a/b", 0)


async def test_a_reader_may_leave_early(store: ObjectStore) -> None:
    data = bytes(5_000_000)
    await store.put("a/b", data)
    for _ in range(20):  # more often than there are connections
        async with aclosing(store.read("a/b")) as pieces:
            assert len(await anext(pieces)) > 0

    assert await store.get("a/b") == data


async def test_list_is_sorted_and_of_the_prefix_only(store: ObjectStore) -> None:
    for key in ("jobs/2/a", "jobs/1/b", "jobs/1/a", "jobs/10/a"):
        await store.put(key, key.encode())

    assert [info.key for info in await store.list("jobs/1/")] == ["jobs/1/a", "jobs/1/b"]
    assert [info.size for info in await store.list("jobs/10")] == [9]


async def test_delete_of_an_unknown_object_is_no_error(store: ObjectStore) -> None:
    await store.put("a/b", b"1")
    await store.delete("a/b")
    await store.delete("a/b")

    assert await store.list("") == []


async def test_delete_prefix_removes_what_it_counts(store: ObjectStore) -> None:
    for key in ("jobs/1/a/b", "jobs/1/c", "jobs/2/a"):
        await store.put(key, b"")

    assert await store.delete_prefix("jobs/1/") == 2
    assert [info.key for info in await store.list("jobs/")] == ["jobs/2/a"]


@pytest.mark.parametrize("key", ["../x", "a/../b", "/etc/passwd", "a//b", ".", "a/\0"])
async def test_local_keys_cannot_leave_the_folder(key: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")

    with pytest.raises(ObjectMissing):
        await store.put(key, b"x")

    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]


async def test_local_puts_leave_no_partial_files(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store", durable=True)
    await store.put("a/b", b"x")
    (tmp_path / "f").write_bytes(b"y")
    await store.put_file("a/c", tmp_path / "f")

    assert list((tmp_path / "store" / "partial").iterdir()) == []
    assert not (tmp_path / "f").exists()


async def test_local_starts_clean_of_what_a_killed_process_left(tmp_path: Path) -> None:
    LocalStore(tmp_path / "store")
    (tmp_path / "store" / "partial" / "half").write_bytes(b"x")

    LocalStore(tmp_path / "store")

    assert list((tmp_path / "store" / "partial").iterdir()) == []
