"""Connecting to the right thing, and what refusals say."""

from typing import Any

import pytest

from contracts.chain.client import Chain, connect
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.errors import EscrowError
from contracts.chain.events import Deposited, EpochPublished, PageRaised
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.terms import Nums, Parties, Terms
from contracts.types import ZERO_ADDRESS, ZERO_HASH
from tests.support.devnet import TOKEN, Funded

NOBODY = "0x000000000000000000000000000000000000dEaD"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chain_id": 1}, "has chain id 31337, expected 1"),
        ({"escrow": NOBODY}, f"no contract at {NOBODY} \\(escrow\\) on chain 31337"),
        ({"token": NOBODY}, f"no contract at {NOBODY} \\(token\\) on chain 31337"),
        ({"escrow": None}, "the setting 'escrow' is missing"),
        ({"rpc_url": "http://127.0.0.1:1"}, "no Ethereum node answers at http://127.0.0.1:1"),
    ],
)
def test_what_connect_refuses(devnet: Devnet, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        connect(devnet.settings.model_copy(update=changed))
    assert caught.value.hint


def test_a_contract_that_is_no_escrow(devnet: Devnet) -> None:
    with pytest.raises(UserError, match="is not a gpumarket escrow"):
        connect(devnet.settings.model_copy(update={"escrow": devnet.settings.token}))


def test_another_token_than_the_escrows(devnet: Devnet) -> None:
    with pytest.raises(UserError, match=r"holds the token 0x.*, but the settings say 0x"):
        connect(devnet.settings.model_copy(update={"token": devnet.settings.epoch_log}))


def refusal(chain: Chain, call: Any, sender: str) -> EscrowError:
    with pytest.raises(EscrowError) as caught:
        chain.dry_run(call, sender)
    return caught.value


def test_refusals_name_the_values(chain: Chain, funded: Funded) -> None:
    [alice] = funded(held=7)
    who = alice.address
    for call, name, sentence in [
        (chain.withdraw(who, 5), "Escrow_BalanceShort", f"{who} has 0 free in the escrow, 5 short of 5"),
        (chain.withdraw(who, 0), "Escrow_ZeroAmount", "the amount must not be 0"),
        (chain.withdraw(ZERO_ADDRESS, 1), "Escrow_ZeroAddress", "the address must not be 0"),
        (chain.raise_page(0), "Escrow_PageNotHigher", "the page is 0 already; 0 is not higher"),
        (
            chain.deposit(who, 1),
            "ERC20InsufficientAllowance",
            f"{chain.escrow.address} may take 0 of the token, 1 is needed: approve it first",
        ),
        (
            chain.faucet(who, 10**13),
            "DevToken_AboveCap",
            "the faucet gives at most 1000000000000 at once, not 10000000000000",
        ),
        (chain.publish_epoch(0, ZERO_HASH), "EpochLog_NotHigher", "epoch 0 is not above the newest published one, 0"),
    ]:
        error = refusal(chain, call, who)
        assert (error.name, error.message) == (name, sentence)


def test_refusals_about_leases(chain: Chain) -> None:
    parties = Parties(ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH, NOBODY, NOBODY, NOBODY, 1)
    terms = Terms(NOBODY, Nums(0, 1, 1, 1, 1, 0, 1), parties)
    rules = Rules(
        arbiter=NOBODY, arbiter_fee=0, arbiter_timeout=1, checkpoint_timeout=1, window=1, verification=ZERO_HASH
    )
    for call in (
        chain.collect(terms),
        chain.end(terms),
        chain.close(terms),
        chain.claim(terms, 1, "0x" + "00" * 20, [ZERO_HASH]),
        chain.resolve(terms, rules),
        chain.challenge(terms, rules, ZERO_ADDRESS, [], 1),
    ):
        error = refusal(chain, call, NOBODY)
        assert error.name == "Escrow_WrongPhase"
        assert error.message.startswith(f"there is no lease {terms.lease}")


def test_events_of_a_receipt(chain: Chain, funded: Funded) -> None:
    [alice] = funded(held=10 * TOKEN)
    sender = Sender(chain, alice)
    permitted = chain.deposit_with_permit(alice, TOKEN, chain.now() + 60)
    [deposited] = chain.events(sender.send(permitted))
    assert isinstance(deposited, Deposited)
    assert (deposited.account, deposited.sender, deposited.amount) == (alice.address, alice.address, TOKEN)
    assert chain.account(alice.address).free == TOKEN
    [raised] = chain.events(sender.send(chain.raise_page(3)))
    assert isinstance(raised, PageRaised) and raised.page == 3
    [published] = chain.events(sender.send(chain.publish_epoch(2, "0x" + "11" * 32)))
    assert isinstance(published, EpochPublished)
    assert (published.market, published.epoch, published.order_set_root) == (alice.address, 2, "0x" + "11" * 32)
