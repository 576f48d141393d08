"""What a client asks for by `job submit` and `job extend`, and how it is told that a value can't be."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from contracts.audits.levels import OPEN, UNCHECKED
from contracts.cli.jobs import find_job_by_prefix
from contracts.errors import UserError
from contracts.job.file import read_job, work_hash
from contracts.orders import new_account
from contracts.wallet import keys
from market.client import submit
from market.client.cli.common import client_key
from tests.support.market_parts import make_spec
from tests.support.offline_market import DOMAIN, World

OFFER = {"max_price": "2", "stake": "20"}


def prepare(world: World, folder: Path, **fields: Any) -> submit.Submission:
    (folder / "recipe.py").write_text("class Mine: ...\n")
    job = {
        "environment": "torch-2.13", "recipe": "recipe.py:Mine", "files": ["recipe.py"], "steps": 40,
        "checkpoint_every": 10, "units": 1000,
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(job | OFFER | fields))
    return submit.prepare(world.api, DOMAIN, world.client.address, folder, None)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"max_price": "-1"}, "max_price: '-1' is not an amount"),
        ({"max_price": "0.5 eth"}, "max_price: '0.5 eth' is not an amount"),
        ({"max_price": "1 per hour"}, "max_price: '1 per hour': a price is in tokens per checkpoint"),
        ({"max_price": "0.0000001"}, "max_price: '0.0000001' has 7 digits after the point"),
        (
            {"max_price": "79228162514264337593543"},
            "max_price: 79228162514264337593543000000 for each of 4",
        ),
        ({"stake": "1" + "0" * 30}, "stake: '1000.*' is more than the escrow can count"),
        ({"max_price": None, "budget": "3 per hour"}, "budget: '3 per hour' is not an amount"),
        ({"max_price": None, "budget": "0"}, "budget: 0 is nothing per checkpoint"),
        ({"max_price": None, "budget": "0.000003"}, "budget: 0.000003 is nothing per checkpoint, of which there are 4"),
        ({"budget": "3"}, "the budget of 3 is 0.75 tUSD per checkpoint"),
        ({"valid_for": 10**15}, "valid_for: Input should be less than or equal to 315360000"),
        ({"units": 1 << 64}, "units: .*18446744073709551616"),
    ],
)
def test_a_value_that_can_not_be(world: World, tmp_path: Path, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        prepare(world, tmp_path, **fields)


def test_units_of_another_recipe_are_refused(world: World, tmp_path: Path) -> None:
    prepare(world, tmp_path)
    _, spec = read_job(tmp_path)
    prepare(world, tmp_path, units_of=work_hash(spec, 1000))
    with pytest.raises(UserError, match="since its 2000 units were counted, the recipe, its config") as caught:
        prepare(world, tmp_path, units_of=work_hash(spec, 1000), units=2000)
    assert "gpumarket recipe measure" in str(caught.value.hint)


def test_a_budget_is_kept_by_the_price(world: World, tmp_path: Path) -> None:
    assert prepare(world, tmp_path, max_price=None, budget="3").quote.bid.max_price == 750_000


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_price": "-1"}, "max_price: '-1' is not an amount"),
        ({"max_price": "1 per day"}, "max_price: '1 per day': a price is in tokens per checkpoint"),
        ({"valid_for": 10**12}, "the new Bid: valid_for: .*got 1000000000000"),
        ({"steps": 7}, "does not divide steps 7"),
        ({"deadline": "tomorrow"}, "'tomorrow' is not RFC 3339"),
        ({"steps": None}, "that job is done"),
    ],
)
def test_a_follow_up_that_can_not_be(world: World, changes: dict[str, Any], problem: str) -> None:
    earlier = world.api.post_bid(world.bid(spec=make_spec()))
    done = earlier.model_copy(update={"accepted": earlier.bid.checkpoints})
    fields = {"steps": make_spec().checkpoint_every} | changes
    with pytest.raises(UserError, match=problem):
        submit.prepare_follow_up(world.api, DOMAIN, done, "0x" + "11" * 20, **fields)
    offer = submit.prepare_follow_up(
        world.api, DOMAIN, done, "0x" + "11" * 20, steps=make_spec().checkpoint_every, max_price="0.5 per checkpoint"
    )
    assert offer.quote.bid.max_price == 500_000


def test_whose_job_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    client, other = new_account(), new_account()
    job: Any = SimpleNamespace(id="0x" + "ab" * 32, bid=SimpleNamespace(client=client.address))
    keys.save("you", other, "x", scrypt_n=2)
    with pytest.raises(UserError, match=f"only its client {client.address} .* is not here"):
        client_key(job, None)
    keys.save("me", client, "x", scrypt_n=2)
    assert client_key(job, None) == client_key(job, "me") == "me"
    with pytest.raises(UserError, match=f"the key 'you' is {other.address}") as caught:
        client_key(job, "you")
    assert caught.value.hint == "--key me"


@pytest.mark.parametrize("prefix", ["", "0x", "digits", "0x" + "a" * 65, "0x" + "zz" * 32])
def test_what_is_no_jobs_id(prefix: str) -> None:
    nobody_is_asked: Any = None
    with pytest.raises(UserError, match="is not a job's id"):
        find_job_by_prefix(nobody_is_asked, prefix)


def test_a_market_that_shows_another_level_than_is_signed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = world.api.info()
    assert info.rules[0].verification == UNCHECKED
    lying = [one.model_copy(update={"verification": OPEN}) for one in info.rules]
    monkeypatch.setattr(world.api, "info", lambda: info.model_copy(update={"rules": lying}))
    with pytest.raises(UserError, match=f"commit to the verification {UNCHECKED.hash()}.*{OPEN.hash()}") as caught:
        prepare(world, tmp_path)
    assert str(caught.value.hint).startswith("Sign nothing there")


def test_a_market_that_gives_another_job_than_it_is_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = world.api.post_bid(world.bid(spec=make_spec()))
    assert find_job_by_prefix(world.api, job.id) == job
    monkeypatch.setattr(world.api, "job", lambda id: job)
    with pytest.raises(UserError, match=f"was asked for the job 0x{'ab' * 32}, and gives {job.id}"):
        find_job_by_prefix(world.api, "0x" + "ab" * 32)
