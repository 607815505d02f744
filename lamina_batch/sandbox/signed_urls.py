"""Output URLs that expire: signed as a storage service signs them."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSigner:
    """Signs the URLs of outputs."""

    #: kept with the executions, so that yesterday's URLs still open after a restart
    secret: bytes

    def link(self, base_url: str, execution_id: str, file_name: str, *, expires: int) -> str:
        """The URL of one output. `expires` is epoch seconds."""
        signature = self._signature(execution_id, file_name, str(expires))
        return f"{base_url}/media/{execution_id}/{quote(file_name)}?expires={expires}&sig={signature}"

    def is_signed(self, execution_id: str, file_name: str, *, expires: str, signature: str) -> bool:
        """Whether the signature is ours."""
        expected = self._signature(execution_id, file_name, expires)
        return hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))

    def _signature(self, execution_id: str, file_name: str, expires: str) -> str:
        message = f"{execution_id}/{file_name}?{expires}".encode(errors="replace")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:32]
