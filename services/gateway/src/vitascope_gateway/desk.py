"""What the routes share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request

from vitascope_core.errors import BrokerUnavailable
from vitascope_core.job import EndState, FileRecord, JobKind, JobSpec
from vitascope_core.ports import Clock, ObjectStore, ResultLinks
from vitascope_gateway.board import Board
from vitascope_gateway.bodies import read_fields
from vitascope_gateway.catalogue import Catalogue
from vitascope_gateway.content import filename
from vitascope_gateway.errors import NotFound
from vitascope_gateway.fields import Fields
from vitascope_gateway.ledger import JobView
from vitascope_gateway.settings import GatewaySettings
from vitascope_gateway.submission import Submission

NOBODY = ""
"""The owner of all jobs while there are no API keys."""

_ODD_CHARACTERS = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts that answer requests."""

    board: Board
    submission: Submission
    results: ObjectStore
    settings: GatewaySettings
    clock: Clock
    frames: ObjectStore
    links: ResultLinks | None = None

    async def fields(self, request: Request) -> Fields:
        """Return the fields of a request's body."""
        return await read_fields(request, self.settings.max_text_part_bytes)

    def owner(self, request: Request) -> str:
        """Return whose jobs the request may see and make."""
        del request
        return NOBODY

    @property
    def catalogue(self) -> Catalogue:
        """The cards as last heard.

        Raises:
            BrokerUnavailable: They were not heard yet.
        """
        catalogue = self.board.catalogue
        if not catalogue.pools and not self.board.ready:
            raise BrokerUnavailable("the cards are not known yet")
        return catalogue

    async def job(self, request: Request, job_id: str, kind: JobKind) -> JobView:
        """Return the job that the request is about.

        Raises:
            NotFound: There is none of this kind that the request may see.
        """
        view = await self.board.lookup(job_id)
        if view is None or view.spec.kind is not kind or view.spec.owner != self.owner(request):
            raise unknown(kind, job_id)
        return view

    def link(self, spec: JobSpec, record: FileRecord) -> str | None:
        """Return where clients download a file without this server, or None."""
        if self.links is None:
            return None
        return self.links.link(record.key, record.content_type, filename(spec, record))

    def base_url(self, request: Request) -> str:
        """Return where clients reach this server, without a slash at the end."""
        return self.settings.public_base_url or str(request.base_url).rstrip("/")


def unknown(kind: JobKind, job_id: str) -> NotFound:
    """Return the error for a job that is not there."""
    return NotFound(f"{kind.capitalize()} with id '{_ODD_CHARACTERS.sub('?', job_id[:80])}' not found.")


def is_completed(view: JobView) -> bool:
    """Whether the job has its files."""
    return view.end is not None and view.end.state is EndState.COMPLETED
