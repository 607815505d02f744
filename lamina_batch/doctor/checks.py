"""Is everything there that a run needs? A table of checks, each a few lines over the facts: ok, warn or fail, and what
to do. Nothing is spent, and nothing is changed. Pure: facts.py gathers what is looked at here.
"""

from __future__ import annotations

import ipaddress
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeGuard
from urllib.parse import urlsplit

from lamina_batch.client.signatures import MAX_AGE_SECONDS
from lamina_batch.errors import CredentialsError, LaminaBatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lamina_batch.doctor.facts import Facts
    from lamina_batch.doctor.webhook_roundtrip import RoundTrip
    from lamina_batch.pipeline.spec import Pipeline

#: Of `--json`: changes when a key changes its meaning or goes.
SCHEMA_VERSION = 1
#: Seconds that two clocks may be apart without a word.
_CLOCK_TOLERANCE_SECONDS = 30.0
#: What tokens of the official tool's login begin with: they last about an hour (docs/lamina-api.md,
#: "Credentials file").
_LOGIN_PREFIX = "lma_mcp_at_"
#: The ledger's tables are STRICT.
_MIN_SQLITE = (3, 37)


class CheckLevel(StrEnum):
    """How a check came out."""

    OK = "ok"
    #: a run works, but a person should look
    WARN = "warn"
    #: a run would not work, or not as the pipeline says
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check found."""

    #: the check's name
    check: str
    level: CheckLevel
    message: str
    #: what to do; None: nothing
    hint: str | None = None


def run_checks(facts: Facts) -> tuple[CheckResult, ...]:
    """What all checks find, in the order of the table."""
    return tuple(
        CheckResult(check=name, level=level, message=message, hint=hint)
        for name, check in CHECKS.items()
        for level, message, hint in check(facts)
    )


def exit_code(lines: Iterable[CheckResult]) -> int:
    """1 if a check failed, else 0."""
    return int(any(line.level is CheckLevel.FAIL for line in lines))


def as_json(lines: Iterable[CheckResult]) -> dict[str, object]:
    """What `--json` prints (docs/doctor.md)."""
    told = tuple(lines)
    return {
        "schema_version": SCHEMA_VERSION,
        "exit_code": exit_code(told),
        "checks": [asdict(line) for line in told],
    }


# -- the checks: each yields level, message and hint -------------------------------------------------------------

CheckOutcome = tuple[CheckLevel, str, str | None]


def _ok(message: str) -> CheckOutcome:
    return CheckLevel.OK, message, None


def _warn(message: str, hint: str) -> CheckOutcome:
    return CheckLevel.WARN, message, hint


def _fail(message: str, hint: str) -> CheckOutcome:
    return CheckLevel.FAIL, message, hint


def _from_error(error: LaminaBatchError) -> CheckOutcome:
    return _fail(error.located_message, error.hint or "put that right, then ask again")


def _versions(facts: Facts) -> Iterator[CheckOutcome]:
    text = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    sqlite = tuple(int(part) for part in facts.versions["sqlite"].split(".")[:2])
    if sqlite < _MIN_SQLITE:
        yield _fail(
            f"this Python has SQLite {facts.versions['sqlite']}: too old", "use a Python with SQLite 3.37 or newer"
        )
    else:
        yield _ok(text)


def _key(facts: Facts) -> Iterator[CheckOutcome]:
    access = facts.access
    if isinstance(access, LaminaBatchError):
        if isinstance(access, CredentialsError):
            yield _from_error(access)
        return
    if access.service == "sandbox":
        yield _ok("the stand-in needs none")
        return
    status = facts.service.greeting.status if facts.service is not None else None
    where = f"found in {access.key_source}"
    if status == 401:
        said = facts.service.greeting.message if facts.service is not None else ""
        yield _fail(
            f"{where}, and refused by the service: {said}",
            "make a new one in the workspace settings of Lamina, or run `lamina login` again",
        )
    elif facts.service is not None and facts.service.greeting.usable:
        yield _ok(f"{where}, and accepted by the service")
    else:
        yield _warn(f"{where}; whether the service takes it is not known", "see `service`")
    if access.api_key.startswith(_LOGIN_PREFIX):
        yield _warn(
            "it is a login of the official tool, which lasts about an hour",
            "for runs by night make a key in the workspace settings of Lamina and set LAMINA_API_KEY",
        )


def _base_url(facts: Facts) -> Iterator[CheckOutcome]:
    access = facts.access
    if isinstance(access, LaminaBatchError):
        if not isinstance(access, CredentialsError):
            yield _from_error(access)
        return
    if access.service == "sandbox":
        yield _ok("the embedded stand-in")
    elif urlsplit(access.base_url).scheme == "https" or _is_loopback(access.base_url):
        yield _ok(access.base_url)
    else:
        yield _fail(
            f"{access.base_url}: the key goes there for all to read", "write https in --base-url or LAMINA_BASE_URL"
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _service(facts: Facts) -> Iterator[CheckOutcome]:
    if facts.service is None:
        yield _warn("not asked: there is no key, or no base URL", "see above")
        return
    greeting = facts.service.greeting
    seconds = facts.service.received_at - facts.service.sent_at
    match greeting.status:
        case None:
            yield _fail(greeting.message, "check the network of this computer, its firewall, and the base URL")
        case 200 if greeting.usable:
            yield _ok(f"answers in {max(0.0, seconds):.2f} s")
        case 200:
            yield _fail(f"something answers, but not the API: {greeting.message}", "check the base URL")
        case 401:
            yield _ok("answers")
        case 429:
            yield _warn(
                "the rate limit of this address is used up",
                "another program or run uses it: wait a minute; `run.share` leaves room for others",
            )
        case status if 300 <= status < 400:
            yield _fail(f"it redirects (HTTP {status}), which is never followed with the key", "check the base URL")
        case status:
            yield _fail(f"HTTP {status}: {greeting.message}", "try again later; if it stays, ask Lamina")


def _generation(facts: Facts) -> Iterator[CheckOutcome]:
    found = facts.service.generation if facts.service is not None else None
    if found is None:
        return
    if isinstance(found, LaminaBatchError):
        yield _from_error(found)
        return
    asked = facts.pipeline.api.api_version if _is_pipeline(facts.pipeline) else "auto"
    if asked in {"auto", found.name}:
        yield _ok(f"{found.name}" + ("" if asked == "auto" else ", as `api.generation` says"))
    elif asked == "runs":
        yield _fail(f"the service answers as {found.name}, and `api.generation` is runs", "write `generation: auto`")
    else:
        yield _warn(
            f"the service answers as {found.name}, and `api.generation` is {asked}",
            "it may answer both for a while: write `generation: auto`",
        )


def _is_pipeline(pipeline: Pipeline | LaminaBatchError | None) -> TypeGuard[Pipeline]:
    return pipeline is not None and not isinstance(pipeline, LaminaBatchError)


def _limit(facts: Facts) -> Iterator[CheckOutcome]:
    greeting = facts.service.greeting if facts.service is not None else None
    if greeting is None or not (greeting.usable or greeting.status == 429):
        return
    quota = greeting.quota
    if quota.limit is None or quota.remaining is None:
        yield _warn(
            "the service says nothing about its rate limit",
            "100 requests a minute are assumed; `run.requests_per_minute` sets another number",
        )
        return
    window = f" in {quota.window:g} s" if quota.window is not None else ""
    yield _ok(f"{quota.limit} requests{window}, of which {quota.remaining} are left")


def _clock(facts: Facts) -> Iterator[CheckOutcome]:
    service = facts.service
    if service is None or service.greeting.status is None:
        return
    try:
        said = parsedate_to_datetime(service.greeting.date).timestamp()
    except (ValueError, TypeError):
        yield _warn("the service does not tell the time", "see that this computer's clock is set by NTP")
        return
    # The header is cut to whole seconds, and was written between our two looks at the clock.
    ahead = max(0.0, service.sent_at - (said + 1.0)) - max(0.0, said - service.received_at)
    if abs(ahead) <= _CLOCK_TOLERANCE_SECONDS:
        yield _ok("agrees with the service's" if abs(ahead) <= 2 else f"{abs(ahead):.0f} s off the service's")
        return
    words = f"this computer's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the service's"
    hint = "let NTP set it (`timedatectl set-ntp true`)"
    if abs(ahead) > MAX_AGE_SECONDS - _CLOCK_TOLERANCE_SECONDS and _by_webhook(facts):
        yield _fail(f"{words}: deliveries are refused from {MAX_AGE_SECONDS} s on", hint)
    else:
        yield _warn(f"{words}: what is written down carries wrong instants", hint)


def _by_webhook(facts: Facts) -> bool:
    return _is_pipeline(facts.pipeline) and facts.pipeline.run.completion == "webhook"


def _pipeline(facts: Facts) -> Iterator[CheckOutcome]:
    if isinstance(facts.pipeline, LaminaBatchError):
        yield _from_error(facts.pipeline)
    elif facts.pipeline is not None:
        yield _ok(f"{facts.pipeline.name}: reads well")


def _command(facts: Facts, words: str) -> str:
    return facts.pipeline.command_line(words) if _is_pipeline(facts.pipeline) else f"lamina-batch {words}"


def _app(facts: Facts) -> Iterator[CheckOutcome]:
    app = facts.service.app if facts.service is not None else None
    if isinstance(app, LaminaBatchError):
        yield _from_error(app)
    elif app is not None:
        yield _ok(f"{app.name!r}, with {len(app.parameters)} parameters")


def _drift(facts: Facts) -> Iterator[CheckOutcome]:
    drift = facts.place.drift if facts.place is not None else None
    if drift is None:
        return
    if isinstance(drift, LaminaBatchError):
        yield _from_error(drift)
        return
    for note in drift:
        yield _warn(note, f"`{_command(facts, 'apps diff')}` shows all of it")
    if not drift and _is_pipeline(facts.pipeline):
        pinned = facts.pipeline.schema_options.pin is not None
        yield _ok(
            f"the app is as {'it was pinned' if pinned else 'in the last run, if there was one: there is no pin'}"
        )


def _rows(facts: Facts) -> Iterator[CheckOutcome]:
    if facts.place is None:
        return
    if facts.place.rows is not None:
        yield _from_error(facts.place.rows)
    else:
        yield _ok(f"can be read; `{_command(facts, 'validate')}` checks them")


def _state(facts: Facts) -> Iterator[CheckOutcome]:
    place = facts.place
    if place is None:
        return
    for error in place.state:
        yield _from_error(error)
    if place.counts is not None:
        held = place.counts.get("held", 0) + place.counts.get("submitting", 0)
        if held:
            what = f"{held} rows are held: it is not known whether they were bought"
            yield _warn(what, f"see `{_command(facts, 'held')}`")
    if not place.state and _is_pipeline(facts.pipeline):
        jobs = sum(place.counts.values()) if place.counts is not None else 0
        ledger = f"a ledger of {jobs} jobs" if place.counts is not None else "no ledger yet"
        yield _ok(f"{facts.pipeline.state}: {ledger}; local, writable, with room")


def _results(facts: Facts) -> Iterator[CheckOutcome]:
    if facts.place is None:
        return
    for error in facts.place.results:
        yield _from_error(error)
    if not facts.place.results:
        yield _ok("their folders may be written")


def _webhook(facts: Facts) -> Iterator[CheckOutcome]:
    if not _is_pipeline(facts.pipeline) or facts.pipeline.run.webhook is None:
        return
    trip = facts.service.trip if facts.service is not None else None
    if trip is None:
        yield _warn("not tried: the service does not answer", "see `service`")
    elif isinstance(trip, LaminaBatchError):
        yield _from_error(trip)
    elif trip.ours:
        yield from _round_trip_outcomes(trip, facts.pipeline.run.webhook.listen)
    elif trip.taken:
        yield _ok("the stand-in delivered, and its signature was verified; the public address is not used here")
    else:
        why = "; ".join([trip.trouble, *trip.notes] if trip.trouble else trip.notes) or "none came in"
        yield _fail(
            f"the sandbox's delivery was not accepted: {why}", "another program on this computer may be in the way"
        )


def _round_trip_outcomes(trip: RoundTrip, listen: tuple[str, int]) -> Iterator[CheckOutcome]:
    at = f"{listen[0]}:{listen[1]}"
    way = "tunnel or proxy"
    if urlsplit(trip.url).scheme != "https" and not _is_loopback(trip.url):
        yield _warn(f"{trip.url}: results can be read on the way", "let the public side be https")
    if trip.busy:
        yield _ok(f"a run listens at {at} just now, and is reached at {trip.url}")
    elif trip.taken and trip.status == 200:
        yield _ok(f"{trip.url} leads to {at}: a signed request came in whole, on the way from this computer")
    elif trip.taken:
        yield _fail(
            f"a request came in, but its answer did not come back whole: {_response_text(trip)}",
            f"the service takes that for a failure, and tries again: see what the {way} does with answers",
        )
    elif trip.arrived:
        why = "; ".join(trip.notes) or _response_text(trip)
        yield _fail(
            f"a request came in, but not as it was sent: {why}",
            f"the {way} has to hand on the body and the X-Lamina-Webhook- headers as they come",
        )
    elif trip.wrong_token:
        yield _fail(
            "a request came in without the last part of its path, which is the token",
            f"the {way} has to keep the end of the path: see docs/webhooks.md",
        )
    elif trip.status is not None and 300 <= trip.status < 400:
        yield _fail(
            f"{trip.url} redirects (HTTP {trip.status}), and the service does not follow", "name where it leads"
        )
    elif trip.status is not None:
        yield _fail(
            f"{trip.url} does not lead to {at}: another server answers with HTTP {trip.status}",
            f"see that the {way} runs, and that it leads to {at}",
        )
    else:
        yield _fail(
            f"{trip.url} cannot be reached from this computer: {trip.trouble}",
            f"see that the {way} runs; where only others can reach it, as behind some routers, this check cannot tell",
        )


def _response_text(trip: RoundTrip) -> str:
    return f"HTTP {trip.status}" if trip.status is not None else trip.trouble


def _notify(facts: Facts) -> Iterator[CheckOutcome]:
    if not _is_pipeline(facts.pipeline) or facts.pipeline.notify is None:
        return
    notify = facts.pipeline.notify
    if facts.notify_problem is not None:
        yield _warn(facts.notify_problem, "no notification will be sent: correct notify.url")
    else:
        yield _ok(f"{urlsplit(notify.url).hostname} is told of {', '.join(notify.on)} (it was not called)")


#: In the order in which a person would look.
CHECKS: dict[str, Callable[[Facts], Iterator[CheckOutcome]]] = {
    "versions": _versions,
    "key": _key,
    "base url": _base_url,
    "service": _service,
    "generation": _generation,
    "limit": _limit,
    "clock": _clock,
    "pipeline": _pipeline,
    "app": _app,
    "drift": _drift,
    "rows": _rows,
    "state": _state,
    "results": _results,
    "webhook": _webhook,
    "notify": _notify,
}
