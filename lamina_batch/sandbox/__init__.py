"""A local stand-in for the Lamina service, to develop against and to prove claims with its log. See docs/sandbox.md.

It imports no other room of lamina_batch: shared code would make client and server agree by construction.
"""

from __future__ import annotations

from lamina_batch.sandbox.api_versions import GENERATIONS
from lamina_batch.sandbox.hosting import embedded, last_port, serve
from lamina_batch.sandbox.options import SandboxOptions
from lamina_batch.sandbox.server import Sandbox

__all__ = ["GENERATIONS", "SANDBOX_KEY", "Sandbox", "SandboxOptions", "embedded", "last_port", "serve"]

#: a key that the sandbox accepts; it accepts every one that starts with `lma_` and does not say `revoked`
SANDBOX_KEY = "lma_sandbox"
