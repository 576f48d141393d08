"""How a node is asked, beside whatever else the process does."""

import os
import threading

from contracts.chain.client import Chain


def test_the_environment_may_change_meanwhile(chain: Chain) -> None:
    """Listing the variables, as requests does to find proxies, fails in Python while another thread removes one."""
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            os.environ["GPUMARKET_TEST_OF_THREADS"] = "1"
            del os.environ["GPUMARKET_TEST_OF_THREADS"]

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(200):
            assert chain.now() > 0
    finally:
        ended.set()
        changing.join()
