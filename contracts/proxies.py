"""Which proxy the environment puts between this program and an address."""

import os
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


class EnvironmentProxy(NamedTuple):
    variable: str  # such as HTTP_PROXY
    address: str  # scheme, host and port

    @property
    def told(self) -> str:
        return f"the proxy {self.address} (${self.variable})"

    def way_around(self, url: str) -> str:
        """What leaves the proxy out for this address."""
        return f"NO_PROXY={urlsplit(url).hostname} in the environment leaves it out"


def proxy_of(url: str) -> EnvironmentProxy | None:
    """As the environment is now; not to be called while other threads change it. None for an address that is none."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return None
    found = getproxies()
    address = found.get(parts.scheme) or found.get("all")
    if not address or not host or proxy_bypass(host):
        return None
    names = (name for kind in (parts.scheme, "all") for name in (f"{kind}_proxy", f"{kind}_proxy".upper()))
    variable = next((name for name in names if os.environ.get(name)), "HTTP_PROXY")
    return EnvironmentProxy(variable, plain_address(address))


def plain_address(url: str) -> str:
    """Scheme, host and port of a URL: a password or an access key may be in the rest."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address that is set"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else repr(url)
