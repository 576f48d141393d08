"""An upload for which there is no room: refused as that, and nothing of it stays."""

import resource
from pathlib import Path

import pytest

from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.api.problems import Code, Problem
from contracts.chain.client import Chain
from tests.support.devnet import TOKEN, Funded
from tests.support.market_process import serving, wait_until_ready


def test_an_upload_that_does_not_fit(home: Path, chain: Chain, funded: Funded, tmp_path: Path) -> None:
    (client,) = funded(1, free=100 * TOKEN)
    file = tmp_path / "large"
    file.write_bytes(b"x" * (5 << 20) + b"y" * 1000)
    with serving() as (process, url), MarketClient(url, signer=Signer(client, chain.domain)) as api:
        wait_until_ready(api)
        before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (5 << 20, before[1]))  # as a disk does that ends there
        with pytest.raises(Problem) as caught:
            api.put_blob(file)
        assert (caught.value.status, caught.value.code) == (507, Code.STORAGE_FULL)
        assert "the market's disk is full" in caught.value.message
        assert list((home / "market" / "blobs" / "incoming").iterdir()) == []
        assert api._http.get("/readyz").status_code == 503
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
        assert api.put_blob(file).size == file.stat().st_size
