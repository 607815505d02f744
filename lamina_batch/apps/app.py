"""An app's contract: its name and parameters, parsed tolerantly (docs/lamina-api.md, "Get app")."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from lamina_batch.errors import ServiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One input of an app (docs/lamina-api.md, "Parameters")."""

    #: display name and input key, byte for byte (docs/lamina-api.md, "Names and labels")
    name: str
    #: text, options or url; another type is kept and checked as text
    type: str
    required: bool = False
    #: labels, byte for byte; empty unless the type is options
    options: tuple[str, ...] = ()
    #: any JSON; None: no default
    default: object = None
    #: image, video, audio; empty: any
    accept: tuple[str, ...] = ()
    #: takes a list of values
    multiple: bool = False
    description: str | None = None

    @property
    def must_supply(self) -> bool:
        """Whether a request without it fails (docs/lamina-api.md, "Required and default")."""
        return self.required and self.default is None


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """What the service says about an app."""

    app_id: str
    name: str
    description: str | None
    parameters: tuple[Parameter, ...]
    #: the service's answer as canonical JSON, from which parse_app builds the app again
    served_json: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides whether inputs are valid.

        A description does not change it. Nor does the generation of the API: one of them calls every parameter
        required (docs/lamina-api.md, "Inputs and app fields of runs").
        """
        contract = [
            [p.name, p.type, p.must_supply, list(p.options), p.default, list(p.accept), p.multiple]
            for p in sorted(self.parameters, key=lambda p: p.name)
        ]
        return hashlib.sha256(canonical_json(contract).encode()).hexdigest()


def canonical_json(value: object) -> str:
    """JSON that is the same for equal values: sorted keys, no spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def parse_app(data: object) -> App:
    """Build an App from the `data` of GET /v1/apps/{appId}. Unknown fields are ignored, `id`s are not needed.

    Raises ServiceError if it has no usable list of parameters, because inputs cannot be checked without one.
    """
    if not isinstance(data, Mapping):
        raise ServiceError("the service described the app in a form this version does not know", hint=_UPDATE_HINT)
    listed = data.get("parameters")
    if not isinstance(listed, list):
        raise ServiceError("the service described the app without a list of parameters", hint=_UPDATE_HINT)
    return App(
        app_id=str(data.get("appId") or ""),
        name=str(data.get("name") or data.get("appId") or "unnamed app"),
        description=_text(data.get("description")),
        parameters=tuple(_parameter(item) for item in listed),
        served_json=canonical_json(data),
    )


_UPDATE_HINT = "look at `lamina-batch apps show`, and for a newer version of lamina-batch"


def _parameter(item: object) -> Parameter:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise ServiceError("the service listed a parameter without a name", hint=_UPDATE_HINT)
    return Parameter(
        name=item["name"],
        type=str(item.get("type", "text")),
        required=item.get("required") is True,
        options=_text_tuple(item.get("options")),
        default=item.get("default"),
        accept=_text_tuple(item.get("accept")),
        multiple=item.get("multiple") is True,
        description=_text(item.get("description")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _text_tuple(value: object) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()
