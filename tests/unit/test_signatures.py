"""Which deliveries are believed: keys, signature, freshness (docs/lamina-api.md, "Signing key" and "Verification")."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.client.signatures import (
    MAX_AGE_SECONDS,
    SignatureError,
    SignatureFault,
    VerifyKey,
    parse_keys,
    verify,
)

AT = 1_760_000_000
BODY = b'{"data":{"executionId":"e1","status":"completed"}}'

#: Made by OpenSSL 3.0.19: `openssl pkeyutl -sign -rawin` over "1760000000." and the body, line end included.
OPENSSL_X = "6B2EaFo8A6lgnsyAok7x52AeQBzG07VMrSrAizQg0Kg"
OPENSSL_BODY = b'{"data":{"executionId":"e1","status":"completed","note":"caf\xc3\xa9 \\u00e9"}}\n'
OPENSSL_SIGNATURE = (
    "4185b9bbb61cfdc126215074d58eea6e971ba90d77e1ee3511c85c467d0c2eab"
    "dae387f28b1102b4897b2296c92de1df16679b9186bdb974da0aa1b5b146e501"
)

ONE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def key(private: Ed25519PrivateKey) -> VerifyKey:
    return VerifyKey(private.public_key().public_bytes_raw())


def jwk(private: Ed25519PrivateKey, **changes: object) -> dict[str, object]:
    x = base64.urlsafe_b64encode(private.public_key().public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "v1", "use": "sig", "alg": "EdDSA"} | changes


def signature(private: Ed25519PrivateKey = ONE, timestamp: str = str(AT), body: bytes = BODY) -> str:
    return private.sign(timestamp.encode() + b"." + body).hex()


def fault(**changes: object) -> SignatureFault | None:
    """Why a delivery that is good but for these changes is refused."""
    delivery = {"keys": (key(ONE),), "timestamp": str(AT), "signature": signature(), "body": BODY, "now": float(AT)}
    try:
        verify(**(delivery | changes))  # type: ignore[arg-type]  # the table of cases is looser than the function
    except SignatureError as error:
        return error.fault
    return None


# -- signature -------------------------------------------------------------------------------------------------


def test_what_openssl_signed_is_believed() -> None:
    keys = parse_keys([{"kty": "OKP", "crv": "Ed25519", "x": OPENSSL_X}])
    verify(keys, timestamp=str(AT), signature=OPENSSL_SIGNATURE, body=OPENSSL_BODY, now=AT)
    with pytest.raises(SignatureError) as refused:
        verify(keys, timestamp=str(AT), signature=OPENSSL_SIGNATURE, body=OPENSSL_BODY.strip(), now=AT)
    assert refused.value.fault is SignatureFault.NO_KEY_FITS


@pytest.mark.parametrize("keys", [(key(ONE), key(OTHER)), (key(OTHER), key(ONE))], ids=["first", "last"])
def test_any_of_the_keys_may_have_signed(keys: tuple[VerifyKey, ...]) -> None:
    assert fault(keys=keys) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": ()},
        {"keys": (key(OTHER),)},
        {"body": BODY + b" "},
        {"body": b""},
        {"timestamp": str(AT + 1)},
        {"timestamp": f"0{AT}"},
        {"signature": signature(body=BODY[1:])},
        {"signature": ONE.sign(BODY).hex()},
        {"signature": "0" * 128},
    ],
    ids=["no key", "other key", "body", "no body", "timestamp", "its text", "other body", "body alone", "zeros"],
)
def test_a_signature_of_something_else_fits_no_key(changes: dict[str, object]) -> None:
    assert fault(**changes) is SignatureFault.NO_KEY_FITS


@given(body=st.binary(max_size=200), bit=st.integers(min_value=0))
def test_a_changed_bit_is_seen(body: bytes, bit: int) -> None:
    signed = bytes.fromhex(signature(body=body))
    assert fault(body=body, signature=signed.hex()) is None
    changed = bytearray(signed + body)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    assert fault(signature=changed[:64].hex(), body=bytes(changed[64:])) is SignatureFault.NO_KEY_FITS


def test_hex_in_capitals_is_a_signature() -> None:
    assert fault(signature=signature().upper()) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        signature()[:-1],
        signature()[:-2],
        signature() + "00",
        "0x" + signature()[2:],
        " " + signature()[1:],
        signature()[:-1] + "\n",
        signature()[:-1] + "g",
        signature()[:-1] + "１",
        base64.b64encode(bytes.fromhex(signature())).decode(),
    ],
)
def test_a_signature_is_128_hexadecimal_digits(text: str) -> None:
    assert fault(signature=text) is SignatureFault.MALFORMED


# -- freshness -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (AT + MAX_AGE_SECONDS, None),
        (AT - MAX_AGE_SECONDS, None),
        (AT + MAX_AGE_SECONDS + 1, SignatureFault.STALE),
        (AT - MAX_AGE_SECONDS - 1, SignatureFault.FUTURE),
    ],
)
def test_five_minutes_either_way_are_fresh_and_not_a_second_more(now: int, expected: SignatureFault | None) -> None:
    assert fault(now=float(now)) is expected


def test_a_delivery_that_is_both_stale_and_signed_by_nobody_is_stale() -> None:
    """So that old noise is no reason to ask for new keys."""
    assert fault(now=AT + 301.0, keys=(key(OTHER),)) is SignatureFault.STALE


@pytest.mark.parametrize("by", [301, -301])
def test_a_clock_that_may_be_wrong_is_named(by: int) -> None:
    with pytest.raises(SignatureError, match=r"301 s .*300 s at most: check this computer's clock"):
        verify((), timestamp=str(AT), signature=signature(), body=BODY, now=AT + by)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"+{AT}",
        f"-{AT}",
        f" {AT}",
        f"{AT} ",
        f"{AT}\n",
        f"{AT}.0",
        "1.76e9",
        "1_760_000_000",
        hex(AT),
        "１７６００００００００",
        f"{AT}000",
        "9" * 5000,
        "nan",
        "2025-10-09T08:53:20Z",
    ],
)
def test_a_timestamp_is_decimal_seconds(text: str) -> None:
    assert fault(timestamp=text, signature=signature(timestamp=text)) is SignatureFault.MALFORMED


# -- keys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [jwk(ONE)["x"], f"{jwk(ONE)['x']}="], ids=["unpadded", "padded"])
def test_a_key_is_read_with_and_without_padding(x: str) -> None:
    assert parse_keys([{"kty": "OKP", "crv": "Ed25519", "x": x}]) == (key(ONE),)


@pytest.mark.parametrize(
    "changes",
    [
        {"kty": "EC"},
        {"kty": None},
        {"crv": "X25519"},
        {"crv": "ed25519"},
        {"x": None},
        {"x": 7},
        {"x": ""},
        {"x": base64.urlsafe_b64encode(bytes(31)).decode()},
        {"x": base64.urlsafe_b64encode(bytes(33)).decode()},
        {"x": f"{jwk(ONE)['x']}=="},
        {"x": base64.b64encode(b"\xfb" * 32).decode()},
        {"x": base64.urlsafe_b64encode(ONE.public_key().public_bytes_raw()).decode()[:-1] + "\n"},
        {"x": "é" * 43},
    ],
    ids=lambda changes: f"{changes}"[:40],
)
def test_what_is_no_ed25519_key_is_left_out(changes: dict[str, object]) -> None:
    assert parse_keys([jwk(OTHER), jwk(ONE, **changes), jwk(ONE)]) == (key(OTHER), key(ONE))


def test_a_key_that_is_no_point_of_the_curve_signs_nothing_and_breaks_nothing() -> None:
    keys = (VerifyKey(b"\xff" * 32), key(ONE))
    assert fault(keys=keys) is None
    assert fault(keys=keys[:1]) is SignatureFault.NO_KEY_FITS
