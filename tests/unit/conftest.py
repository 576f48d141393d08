"""Unit tests open no sockets."""

from collections.abc import Iterator

import pytest
import pytest_socket
import structlog

# The default one renders all variables of all frames: seconds for each traceback.
_PLAIN = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _PLAIN])


@pytest.fixture(autouse=True)
def no_sockets() -> Iterator[None]:
    # Event loops wake themselves through a Unix socket pair.
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()
