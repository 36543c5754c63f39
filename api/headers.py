"""Headers of every answer that does not set them itself."""

from __future__ import annotations

from collections.abc import Mapping

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept by who asked, and only to be asked about again (ETag): never in a cache that others share.
    "Cache-Control": "private, no-cache",
}

_CDN, _ICON = "https://cdn.jsdelivr.net", "https://fastapi.tiangolo.com"
DOCS_POLICY = (
    f"default-src 'none'; script-src 'unsafe-inline' {_CDN}; style-src 'unsafe-inline' {_CDN}; "
    f"img-src 'self' data: {_ICON}; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Of ``/docs``: its page is made by the web framework, its script inline, its library from a public address."""
