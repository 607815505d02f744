"""Whether a webhook delivery comes from the service, and lately (docs/lamina-api.md, "Signing key" and "Verification").
Pure.

The service signs the text of the timestamp header, a dot, and the raw bytes of the body, with Ed25519. It lists the
public halves of its keys, and any of them may have signed.
"""

from __future__ import annotations

import base64
import re
from enum import StrEnum
from typing import TYPE_CHECKING, NewType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: So far a timestamp may be from now, either way, the boundary included. What is older may be a replay.
MAX_AGE_SECONDS = 300

_TIMESTAMP_PATTERN = re.compile(r"[0-9]{1,12}")
_SIGNATURE_PATTERN = re.compile(r"[0-9A-Fa-f]{128}")
#: base64url of 32 bytes, padded or not
_PUBLIC_KEY_PATTERN = re.compile(r"[0-9A-Za-z_-]{43}=?")

#: The 32 raw bytes of an Ed25519 public key.
VerifyKey = NewType("VerifyKey", bytes)


class SignatureFault(StrEnum):
    """Why a delivery is not believed."""

    #: the timestamp or the signature is not written as the service writes it
    MALFORMED = "malformed"
    STALE = "stale"
    FUTURE = "future"
    #: none of the keys made this signature over this timestamp and body
    NO_KEY_FITS = "no_key_fits"


class SignatureError(Exception):
    """A delivery that is not believed; the message tells a person why, and holds nothing of the delivery."""

    def __init__(self, fault: SignatureFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def parse_keys(jwks: Iterable[Mapping[str, object]]) -> tuple[VerifyKey, ...]:
    """The Ed25519 keys among these JSON Web Keys (docs/lamina-api.md, "Signing key"), in their order; what is anything
    else is left out.
    """
    return tuple(key for jwk in jwks if (key := _parse_key(jwk)) is not None)


def _parse_key(jwk: Mapping[str, object]) -> VerifyKey | None:
    x = jwk.get("x")
    if (
        jwk.get("kty") != "OKP"
        or jwk.get("crv") != "Ed25519"
        or not isinstance(x, str)
        or not _PUBLIC_KEY_PATTERN.fullmatch(x)
    ):
        return None
    return VerifyKey(base64.urlsafe_b64decode(x[:43] + "="))


def verify(keys: Iterable[VerifyKey], *, timestamp: str, signature: str, body: bytes, now: float) -> None:
    """Return only if one of `keys` signed this body at this timestamp, and that was lately.

    `timestamp` and `signature` are the headers' text: decimal Unix seconds, and 128 hexadecimal digits. `body` is what
    came over the wire, before anything parsed it. `now` is epoch seconds. Raises SignatureError.
    """
    if not _TIMESTAMP_PATTERN.fullmatch(timestamp) or not _SIGNATURE_PATTERN.fullmatch(signature):
        raise SignatureError(
            SignatureFault.MALFORMED, "its signature or timestamp is not written as the service writes it"
        )
    age = now - int(timestamp)
    if age > MAX_AGE_SECONDS:
        raise SignatureError(
            SignatureFault.STALE,
            f"it was signed {age:.0f} s ago, {MAX_AGE_SECONDS} s at most: check this computer's clock",
        )
    if age < -MAX_AGE_SECONDS:
        raise SignatureError(
            SignatureFault.FUTURE,
            f"it was signed {-age:.0f} s from now, {MAX_AGE_SECONDS} s at most: check this computer's clock",
        )
    message = timestamp.encode("ascii") + b"." + body
    if not any(_is_signed_by(key, bytes.fromhex(signature), message) for key in keys):
        raise SignatureError(SignatureFault.NO_KEY_FITS, "none of the service's keys made its signature")


def _is_signed_by(key: VerifyKey, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
