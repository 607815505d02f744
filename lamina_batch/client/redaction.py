"""Taking the API key out of text that leaves the program."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A shorter text is no key, and replacing it would damage ordinary words.
_MIN_SECRET_LENGTH = 8


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` with each secret replaced by `[key]`, also where a URL or JSON spells it with escapes."""
    import json  # noqa: PLC0415  # `--help` starts without them
    from urllib.parse import quote  # noqa: PLC0415

    for secret in secrets:
        if len(secret) >= _MIN_SECRET_LENGTH:
            for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
                text = text.replace(form, "[key]")
    return text
