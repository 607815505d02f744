"""How the answers to one request are written: the form of its generation, its headers, its id."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina_batch.sandbox.limiter import retry_after
from lamina_batch.sandbox.responses import ApiError, HttpReply, error_body, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.sandbox.api_versions import SandboxApiVersion
    from lamina_batch.sandbox.limiter import Hit
    from lamina_batch.sandbox.responses import ApiSuccess

JSON_TYPE = "application/json; charset=utf-8"
HTML_TYPE = "text/html; charset=utf-8"
TOO_MANY = "Too many requests from this IP, please try again in a minute"

_NO_SUCH_PATH = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Error</title>
</head>
<body>
<pre>Cannot {method} {path}</pre>
</body>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Turns answers into HTTP replies in the form of one API version."""

    generation: SandboxApiVersion
    #: of this request; the runs generation tells it
    request_id: str
    #: the rate limit's; empty if they are switched off
    limit_headers: Mapping[str, str]
    #: None: nothing was counted
    hit: Hit | None
    #: Retry-After to the millisecond
    fractional: bool

    def written(self, answer: ApiSuccess | ApiError) -> HttpReply:
        """The reply for an answer."""
        body = (
            to_json(error_body(answer, self.generation, request_id=self.request_id))
            if isinstance(answer, ApiError)
            else answer.body
        )
        return HttpReply(status=answer.status, body=body, headers=self.headers(JSON_TYPE))

    def limited(self) -> HttpReply:
        """The 429 of a spent rate limit: bare text as HTML, or JSON in the runs generation (docs/lamina-api.md,
        "Limiter" and "Errors of runs").
        """
        wait = retry_after(self.hit, fractional=self.fractional) if self.hit is not None else "0"
        if self.generation == "runs":
            refusal = ApiError(status=429, message=TOO_MANY, code="RATE_LIMITED")
            # The header's text is a JSON number: whole, or to the millisecond.
            told = error_body(refusal, self.generation, request_id=self.request_id, retry_after=json.loads(wait))
            body, headers = to_json(told), self.headers(JSON_TYPE)
        else:
            body, headers = TOO_MANY.encode(), self.headers(HTML_TYPE)
        if self.limit_headers:
            # A 429 that a fault asked for comes with budget left, which it does not show.
            headers |= {"RateLimit-Remaining": "0", "X-RateLimit-Remaining": "0", "Retry-After": wait}
        return HttpReply(status=429, body=body, headers=headers)

    def no_such_path(self, method: str, path: str) -> HttpReply:
        """What an Express app returns where it has no route."""
        return no_such_path(method, path, self.headers(HTML_TYPE))

    def headers(self, content_type: str) -> dict[str, str]:
        """The headers of every reply."""
        named = {"X-Request-Id": self.request_id} if self.generation == "runs" else {}
        return {"Content-Type": content_type, **named, **self.limit_headers}


def no_such_path(method: str, path: str, headers: Mapping[str, str]) -> HttpReply:
    """The reply to a path that does not exist, as Express writes it."""
    page = _NO_SUCH_PATH.format(method=html.escape(method), path=html.escape(path))
    return HttpReply(status=404, body=page.encode(errors="replace"), headers=headers)
