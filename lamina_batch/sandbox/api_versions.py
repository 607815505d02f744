"""The two generations of the API: `executions` with its six endpoints, and `runs`, which came after it
(docs/lamina-api.md, "The runs API").

Each reads only what it made: no source says that the older paths still answer, let alone for runs.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

SandboxApiVersion = Literal["executions", "runs"]

#: How the runs generation writes what is wrong with inputs. Its sources disagree (docs/lamina-api.md,
#: "Errors of runs"): the documentation has an array, the official command-line tool looks for `details.details.errors`.
DetailsForm = Literal["array", "nested"]

#: what a sandbox can be told to serve, by the word for it
GENERATIONS: Mapping[str, frozenset[SandboxApiVersion]] = MappingProxyType(
    {
        "executions": frozenset({"executions"}),
        "runs": frozenset({"runs"}),
        "both": frozenset({"executions", "runs"}),
    }
)

#: the field that holds an execution's id, in answers and in webhook bodies
ID_FIELDS: Mapping[SandboxApiVersion, str] = MappingProxyType({"executions": "executionId", "runs": "runId"})


def default_api_version(served: frozenset[SandboxApiVersion]) -> SandboxApiVersion:
    """The generation whose form the addresses take that both have: apps, signing key, unknown ones.

    Where both are served that is the newer one: a service moves on, and keeps older paths for older clients.
    """
    return "runs" if "runs" in served else "executions"
