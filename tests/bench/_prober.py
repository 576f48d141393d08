"""Asks a market for /healthz until its input ends, then prints the longest wait in seconds: `... URL`.

A process of its own: in that of an attack it would wait for the attacker.
"""

import http.client
import sys
import threading
import time
from urllib.parse import urlsplit

PAUSE = 0.02  # seconds between two questions
PATIENCE = 120.0  # for an answer


def ask(host: str, port: int) -> float:
    """Seconds until the answer, on a connection of its own. PATIENCE if there is none."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/healthz")
        if connection.getresponse().status != 204:
            return PATIENCE
    except OSError:
        return PATIENCE
    finally:
        connection.close()
    return time.monotonic() - began


def main() -> None:
    parts = urlsplit(sys.argv[1])
    assert parts.hostname and parts.port
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    longest = ask(parts.hostname, parts.port)
    print("asks", flush=True)
    while not ended.wait(PAUSE):
        longest = max(longest, ask(parts.hostname, parts.port))
    print(longest)


if __name__ == "__main__":
    main()
