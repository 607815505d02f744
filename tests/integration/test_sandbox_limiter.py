"""The sandbox limits requests as express-rate-limit does (docs/lamina-api.md, "Limiter")."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_support import FULL_SET, ask, get, start, wait_for_end

from lamina_batch.sandbox import SANDBOX_KEY, SandboxOptions, embedded
from lamina_batch.sandbox.limiter import FixedWindowLimiter, Hit, rate_limit_headers, retry_after

LONG = 1000.0


def test_the_window_starts_at_the_first_request_and_restarts_at_the_next_request_after_its_end() -> None:
    limiter = FixedWindowLimiter(limit=2, window=60)
    seen = [(at, limiter.hit("a", at)) for at in (100.0, 130.0, 159.9, 160.0, 300.0, 359.0, 359.5)]
    assert [(at, hit.hits, round(hit.resets_in, 3), hit.allowed) for at, hit in seen] == [
        (100.0, 1, 60.0, True),
        (130.0, 2, 30.0, True),
        (159.9, 3, 0.1, False),  # rejected, and the window is no longer for it
        (160.0, 1, 60.0, True),
        (300.0, 1, 60.0, True),  # not 280: a window begins with a request, not by itself
        (359.0, 2, 1.0, True),
        (359.5, 3, 0.5, False),
    ]


def test_addresses_have_windows_of_their_own() -> None:
    limiter = FixedWindowLimiter(limit=1, window=60)
    assert limiter.hit("a", 0.0).allowed
    assert limiter.hit("b", 1.0).allowed
    assert not limiter.hit("a", 2.0).allowed


@given(
    gaps=st.lists(st.floats(0, 50), max_size=60),
    limit=st.integers(1, 5),
    window=st.sampled_from([1.0, 10.0, 60.0]),
)
def test_no_window_lets_more_than_the_limit_pass(gaps: list[float], limit: int, window: float) -> None:
    """However requests arrive: from the request that opens a window to its end, `limit` of them pass."""
    limiter = FixedWindowLimiter(limit=limit, window=window)
    now, opened, passed = 0.0, None, 0
    for gap in gaps:
        now += gap
        hit = limiter.hit("a", now)
        now_ms = int(now * 1000)
        if opened is None or now_ms >= opened + window * 1000:
            opened, passed = now_ms, 0
        passed += hit.allowed
        assert hit.allowed == (hit.hits <= limit)
        assert passed == min(hit.hits, limit)
        assert 0 < hit.resets_in <= window


def test_reset_is_whole_seconds_rounded_up_and_the_older_one_is_an_instant() -> None:
    headers = rate_limit_headers(Hit(limit=100, window=60, hits=3, resets_in=41.2), wall_clock=1_700_000_000.5)
    assert headers == {
        "RateLimit-Limit": "100",
        "RateLimit-Remaining": "97",
        "RateLimit-Reset": "42",
        "RateLimit-Policy": "100;w=60",
        "X-RateLimit-Limit": "100",
        "X-RateLimit-Remaining": "97",
        "X-RateLimit-Reset": "1700000042",
    }


def test_reset_is_left_out_when_it_would_be_0() -> None:
    assert "RateLimit-Reset" not in rate_limit_headers(Hit(limit=100, window=60, hits=3, resets_in=0.0), wall_clock=0.0)


@pytest.mark.parametrize(("fractional", "expected"), [(False, "3"), (True, "2.346")])
def test_retry_after_never_ends_before_the_window(*, fractional: bool, expected: str) -> None:
    assert retry_after(Hit(limit=1, window=3, hits=2, resets_in=2.3456), fractional=fractional) == expected


def test_the_request_past_the_limit_gets_bare_text() -> None:
    with embedded(SandboxOptions(limit=2, window=LONG)) as base_url:
        passed = [get(base_url, "/v1/apps") for _ in range(2)]
        limited = get(base_url, "/v1/apps")
    assert [answered.status for answered in passed] == [200, 200]
    assert [answered.headers["RateLimit-Remaining"] for answered in (*passed, limited)] == ["1", "0", "0"]
    assert limited.status == 429
    assert limited.body == b"Too many requests from this IP, please try again in a minute"
    assert limited.headers["Content-Type"] == "text/html; charset=utf-8"
    assert limited.headers["Retry-After"] == limited.headers["RateLimit-Reset"]


def test_every_request_below_v1_counts_also_a_refused_or_unknown_one() -> None:
    with embedded(SandboxOptions(limit=3, window=LONG)) as base_url:
        statuses = [
            ask(base_url, "/v1/apps", headers={}).status,
            ask(base_url, "/v1/executions/x", headers={"x-api-key": "wrong"}).status,
            get(base_url, "/v1/nothing").status,
            # The limiter stands before the key check: without a key it is 429, not 401.
            ask(base_url, "/v1/apps", headers={}).status,
        ]
    assert statuses == [401, 401, 404, 429]


def test_x_forwarded_for_changes_nothing() -> None:
    with embedded(SandboxOptions(limit=1, window=LONG)) as base_url:
        for address, expected in (("203.0.113.1", 200), ("203.0.113.2", 429)):
            headers = {"x-api-key": SANDBOX_KEY, "X-Forwarded-For": address}
            assert ask(base_url, "/v1/apps", headers=headers).status == expected


def test_media_neither_counts_nor_is_limited() -> None:
    with embedded(SandboxOptions(limit=10_000, window=LONG, speed=100_000)) as base_url:
        data = wait_for_end(base_url, start(base_url, FULL_SET, {}))
        before = int(get(base_url, "/v1/apps").headers["RateLimit-Remaining"])
        media = ask(data["outputs"][0]["value"], headers={})
        assert media.status == 200
        assert "RateLimit-Limit" not in media.headers
        assert int(get(base_url, "/v1/apps").headers["RateLimit-Remaining"]) == before - 1


def test_headers_can_be_switched_off() -> None:
    with embedded(SandboxOptions(limit=1, window=LONG, headers=False)) as base_url:
        passed, limited = get(base_url, "/v1/apps"), get(base_url, "/v1/apps")
    assert (passed.status, limited.status) == (200, 429)
    for answered in (passed, limited):
        assert not [name for name in answered.headers if "ratelimit" in name.lower() or name == "Retry-After"]
