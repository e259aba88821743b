"""Links to finished files: through the gateway, signed for a while, or public."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

import urllib3

from vitascope_core.ports import ResultLinks
from vitascope_platform.s3_settings import Delivery, S3Location, S3Settings
from vitascope_platform.store_s3 import client


class GatewayLinks:
    """`vitascope_core.ports.ResultLinks` that has none: the gateway streams."""

    def link(self, key: str, content_type: str, filename: str) -> str | None:
        """See `vitascope_core.ports.ResultLinks.link`."""
        del key, content_type, filename
        return None


class PresignedLinks:
    """`vitascope_core.ports.ResultLinks` by signature; whoever has the URL may read the file until it expires.

    Args:
        location: The results, at the endpoint that clients reach.
        ttl_s: How long a URL is valid, seconds.
    """

    def __init__(self, location: S3Location, ttl_s: int) -> None:
        self._client = client(location, urllib3.PoolManager())  # signing connects to nothing
        self._bucket = location.bucket
        self._ttl = timedelta(seconds=ttl_s)

    def link(self, key: str, content_type: str, filename: str) -> str | None:
        """See `vitascope_core.ports.ResultLinks.link`."""
        shown = {
            "response-content-type": content_type,
            "response-content-disposition": f'inline; filename="{filename}"',
        }
        return self._client.presigned_get_object(self._bucket, key, self._ttl, response_headers={**shown})


class PublicLinks:
    """`vitascope_core.ports.ResultLinks` to where anybody may read, for example a CDN.

    Args:
        url: What stands before the key, without a slash at the end.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def link(self, key: str, content_type: str, filename: str) -> str | None:
        """See `vitascope_core.ports.ResultLinks.link`."""
        del content_type, filename
        return f"{self._url}/{quote(key)}"


def result_links(settings: S3Settings) -> ResultLinks:
    """Return the links that the settings ask for."""
    if settings.results_delivery is Delivery.PRESIGNED:
        results = settings.results
        reached = replace(results, endpoint=settings.results_public_endpoint or results.endpoint)
        return PresignedLinks(reached, settings.presign_ttl_s)
    if settings.results_public_url is not None:
        return PublicLinks(settings.results_public_url)
    return GatewayLinks()
