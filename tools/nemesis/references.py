"""What every job's files are when nothing happens, made beforehand on the same cluster and checked frame by frame."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import av
import httpx
import numpy as np
from minio import Minio

from tools.cluster.cluster import Cluster
from tools.nemesis.aftermath import Files, result_files
from tools.nemesis.forms import FORMS, Form
from tools.nemesis.load import PATHS
from tools.nemesis.schedule import Follow, Schedule
from vitascope_core.job import JobKind
from vitascope_frames.chunk import Frames
from vitascope_frames.testcard import read_number

_PATIENCE_S = 60.0


class WrongReference(Exception):
    """An undisturbed job did not make what it should: there is nothing to compare with."""


def references_of(schedule: Schedule, cluster: Cluster) -> Mapping[tuple[str, int], Files]:
    """Make every form that the schedule asks for with each of its seeds, one job of each.

    Raises:
        WrongReference: A job failed, or its frames are not the testcard's.
    """
    wanted = {(r.form, r.seed) for r in schedule.requests if r.follow is not Follow.REFUSE and not FORMS[r.form].doom}
    store = cluster.s3.client()
    with ThreadPoolExecutor(4) as threads, httpx.Client(timeout=_PATIENCE_S) as client:
        url = cluster.gateways[0]
        made = threads.map(lambda both: (both, _reference(client, url, store, *both)), sorted(wanted))
        return dict(made)


def _reference(client: httpx.Client, url: str, store: Minio, name: str, seed: int) -> Files:
    form = FORMS[name]
    body = {"prompt": "an undisturbed reference", "seed": seed, **form.fields}
    answer = client.post(url + PATHS[form.kind], json=body)
    if answer.status_code != 200:
        raise WrongReference(f"{name}: {answer.status_code} {answer.text}")
    job = str(answer.json()["id"])
    if form.kind is JobKind.VIDEO:
        _wait(client, f"{url}/v1/videos/{job}", name)
    for output in range(form.outputs):
        data = client.get(f"{url}{_content(form, job)}", params={"variant": str(output)} if form.outputs > 1 else {})
        numbers = [read_number(255 - frame if form.inverted else frame) for frame in _frames(data.content)]
        if numbers != list(range(form.frames)):
            raise WrongReference(f"{name}: its frames are {numbers}")
    (files,) = result_files(store, job)[job].values()
    return files


def _content(form: Form, job: str) -> str:
    return f"/v1/{'videos' if form.kind is JobKind.VIDEO else 'images'}/{job}/content"


def _wait(client: httpx.Client, url: str, name: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while (video := client.get(url).json())["status"] != "completed":
        if video["status"] == "failed" or time.monotonic() > deadline:
            raise WrongReference(f"{name}: {video['status']} {video['error']}")
        time.sleep(0.05)


def _frames(data: bytes) -> list[Frames]:
    """Return the pictures of a file, RGB."""
    with av.open(io.BytesIO(data), "r") as file:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in file.decode(video=0)]
