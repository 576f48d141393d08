"""How a node is asked: one HTTP session for all threads."""

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_netrc_auth

CONNECTIONS = 64  # kept open at most; more than a market has threads


def node_session(url: str) -> requests.Session:
    """Proxies, certificates and a password for the node as the environment names them now.

    They are looked up once: requests would read all variables again for each question, and fail in a thread whose
    neighbour removes one at that moment.
    """
    session = requests.Session()
    found = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify = found["proxies"], found["verify"]
    session.auth = get_netrc_auth(url)
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=CONNECTIONS))
    return session
