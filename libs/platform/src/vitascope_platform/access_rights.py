"""Who may do what on the broker and in the store: derived from what each service's adapters really send.

What the two servers cannot tell apart is not told apart here either; `docs/cluster.md` lists it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from vitascope_core.errors import InvalidSettings
from vitascope_core.plan import StageName
from vitascope_core.task import Queue
from vitascope_platform.bus_nats import stream_name, subject_of
from vitascope_platform.kv_nats import bucket_stream, bucket_subject

GATEWAY, BOOTSTRAP, MONITOR = "gateway", "bootstrap", "monitor"
DENOISER = "denoiser"
WORKERS = {
    "interpolator": StageName.INTERPOLATE,
    "upscaler": StageName.UPSCALE,
    "uploader": StageName.UPLOAD,
}
"""The workers of this project beside the denoisers, and what they work at."""
_ALSO = {StageName.UPLOAD: (StageName.INGEST,)}
"""What a worker takes tasks of beside its own: the one that writes files reads them as well."""

_CHECK = "vitascope-check/*"
"""Where every service tries the stores at its start, whatever else it may do there."""
_PREVIEW = "jobs/*/preview-*"
_AHEAD = {
    StageName.DENOISE: (StageName.INTERPOLATE, StageName.UPSCALE, StageName.UPLOAD),
    StageName.INGEST: (StageName.INTERPOLATE, StageName.UPSCALE, StageName.UPLOAD),
    # Either of the transforms may come first.
    StageName.INTERPOLATE: (StageName.UPSCALE, StageName.UPLOAD),
    StageName.UPSCALE: (StageName.INTERPOLATE, StageName.UPLOAD),
    StageName.UPLOAD: (),
}
_BUCKETS = ("jobs", "cards", "workers", "idem")


@dataclass(frozen=True, slots=True)
class Installation:
    """What rights are made for.

    Attributes:
        pools: Slugs of the denoiser pools: each has credentials of its own.
        prefix: First token of every name on the broker.
        workers: More services by name, and the stage each works at.
        frames_bucket: Where intermediate objects are kept.
        results_bucket: Where finished files are kept.
        result_prefix: What stands before the keys of results, "" or ending with a slash.
    """

    pools: tuple[str, ...]
    prefix: str = "vs"
    workers: Mapping[str, StageName] = field(default_factory=dict)
    frames_bucket: str = "vitascope-frames"
    results_bucket: str = "vitascope-results"
    result_prefix: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9-]{1,40}", self.prefix):
            raise InvalidSettings(f"prefix must be 1 to 40 of a-z, 0-9 and -, got {self.prefix!r}")
        own = {GATEWAY, BOOTSTRAP, MONITOR, DENOISER, *WORKERS}
        for name, stage in self.workers.items():
            if not re.fullmatch("[a-z][a-z0-9-]{0,39}", name) or name in own or name.startswith(f"{DENOISER}-"):
                raise InvalidSettings(f"a worker's name must be of a-z, 0-9 and -, and not one of ours; got {name!r}")
            if stage is StageName.DENOISE:
                raise InvalidSettings(f"{name}: what denoises is a pool")


@dataclass(frozen=True, slots=True)
class Identity:
    """One service's rights; all that is not listed is refused.

    Attributes:
        name: Of the service, a denoiser's with its pool; also of its file.
        user: How the broker and the store call it: the installation's prefix and the name.
        publish: Subjects that it may publish to.
        subscribe: Subjects that it may listen to.
        actions: What it may do in the store, in SeaweedFS's words.
    """

    name: str
    user: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    actions: tuple[str, ...]


def identities(installation: Installation) -> list[Identity]:
    """Return every service of an installation with its rights."""
    rights = _Rights(installation)
    made = [rights.gateway()]
    made += [
        rights.worker(f"{DENOISER}-{pool}", DENOISER, Queue(StageName.DENOISE, pool)) for pool in installation.pools
    ]
    made += [rights.worker(name, name, Queue(stage)) for name, stage in {**WORKERS, **installation.workers}.items()]
    return [*made, rights.bootstrap(), rights.monitor()]


class _Rights:
    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._prefix = installation.prefix
        self._tasks = stream_name(installation.prefix)

    def gateway(self) -> Identity:
        """Begins, ends and deletes jobs; takes no tasks."""
        publish = [
            self._task(StageName.DENOISE, "*"),
            self._task(StageName.INGEST, "any"),
            f"$JS.API.STREAM.INFO.{self._tasks}",
            f"$JS.API.STREAM.PURGE.{self._tasks}",
            f"$JS.API.CONSUMER.INFO.{self._tasks}.*",
            *(self._key("jobs", key) for key in ("*.spec", "*.source", "*.chunk.>", "*.end")),
            self._key("idem", ">"),
            *self._present(GATEWAY),
            *(right for bucket in ("jobs", "cards") for right in self._watch(bucket)),
            *(self._get(bucket) for bucket in ("jobs", "cards", "workers", "idem")),
        ]
        # Of the frames it reads what it shows before the end, and nothing else.
        frames = [*self._frames("Write", "List"), f"Read:{self._installation.frames_bucket}/{_PREVIEW}"]
        return self._identity(GATEWAY, publish, [*frames, *self._results("Read", "Write", "List")])

    def worker(self, name: str, service: str, queue: Queue) -> Identity:
        """Takes the tasks of its queues and makes those of the stages behind them."""
        queues = (queue, *(Queue(stage) for stage in _ALSO.get(queue.stage, ())))
        ahead = dict.fromkeys(stage for each in queues for stage in _AHEAD[each.stage])
        publish = [
            *(f"$JS.API.CONSUMER.MSG.NEXT.{self._tasks}.{each}" for each in queues),
            *(f"$JS.ACK.{self._tasks}.{each}.>" for each in queues),
            # It hands back what it cannot finish by publishing a copy.
            *(self._task(each.stage, each.pool) for each in queues),
            *(self._task(stage, "any") for stage in ahead),
            *(f"$JS.API.CONSUMER.INFO.{self._tasks}.{behind}" for behind in (*queues, *ahead)),
            # Who ends a job removes its tasks and its records of progress, those of all stages.
            f"$JS.API.STREAM.PURGE.{self._tasks}",
            *(self._key("jobs", key) for key in ("*.source", "*.chunk.>", "*.end")),
            *self._card(queue),
            *self._present(service),
            *self._watch("jobs"),
            *(self._get(bucket) for bucket in ("jobs", "cards", "workers")),
        ]
        # Files of an upload that died are removed by whoever ends the job.
        actions = [*self._frames("Read", "Write", "List"), *self._results("Write", "List")]
        return self._identity(name, publish, actions)

    def bootstrap(self) -> Identity:
        """Makes streams, consumers and buckets; reads and writes nothing in them."""
        streams = [self._tasks, *(bucket_stream(self._prefix, bucket) for bucket in _BUCKETS)]
        publish = [f"$JS.API.STREAM.{verb}.{name}" for name in streams for verb in ("INFO", "CREATE", "UPDATE")]
        publish += [f"$JS.API.CONSUMER.INFO.{self._tasks}.*", f"$JS.API.CONSUMER.CREATE.{self._tasks}.>"]
        buckets = (self._installation.frames_bucket, self._installation.results_bucket)
        return self._identity(BOOTSTRAP, publish, [f"Admin:{bucket}" for bucket in buckets])

    def monitor(self) -> Identity:
        """Looks, and tries the stores; for the doctor and for what scales."""
        streams = [self._tasks, *(bucket_stream(self._prefix, bucket) for bucket in _BUCKETS)]
        publish = [
            "$JS.API.INFO",
            *(f"$JS.API.STREAM.INFO.{name}" for name in streams),
            f"$JS.API.CONSUMER.NAMES.{self._tasks}",
            f"$JS.API.CONSUMER.INFO.{self._tasks}.*",
            self._key("workers", "doctor.>"),
            *(right for bucket in ("cards", "workers") for right in self._watch(bucket)),
            *(self._get(bucket) for bucket in ("cards", "workers")),
        ]
        return self._identity(MONITOR, publish, [*self._frames(), *self._results()])

    def _identity(self, name: str, publish: list[str], actions: list[str]) -> Identity:
        user = f"{self._prefix}-{name}"
        return Identity(name, user, tuple(dict.fromkeys(publish)), (f"_INBOX_{user}.>",), tuple(dict.fromkeys(actions)))

    def _task(self, stage: StageName, pool: str) -> str:
        return subject_of(self._prefix, stage, pool, "*")

    def _key(self, bucket: str, key: str) -> str:
        return bucket_subject(self._prefix, bucket, key)

    def _get(self, bucket: str) -> str:
        return f"$JS.API.STREAM.MSG.GET.{bucket_stream(self._prefix, bucket)}"

    def _watch(self, bucket: str) -> list[str]:
        stream = bucket_stream(self._prefix, bucket)
        return [f"$JS.API.CONSUMER.CREATE.{stream}", f"$JS.API.STREAM.INFO.{stream}", f"$JS.FC.{stream}.>"]

    def _present(self, service: str) -> list[str]:
        return [self._key("workers", f"{service}.>")]

    def _card(self, queue: Queue) -> list[str]:
        if queue.stage is StageName.DENOISE:
            return [self._key("cards", f"pool.{queue.pool}.card")]
        return [self._key("cards", f"stage.{queue.stage}.card")] if queue.stage.is_transform else []

    def _frames(self, *actions: str) -> list[str]:
        return _in_bucket(self._installation.frames_bucket, "", actions)

    def _results(self, *actions: str) -> list[str]:
        return _in_bucket(self._installation.results_bucket, self._installation.result_prefix, actions)


def _in_bucket(bucket: str, prefix: str, actions: tuple[str, ...]) -> list[str]:
    tried = [action for action in ("Read", "Write") if action not in actions]
    return [*(f"{action}:{bucket}" for action in actions), *(f"{action}:{bucket}/{prefix}{_CHECK}" for action in tried)]
