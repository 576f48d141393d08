"""What a test does to its chain besides using it: its clock, gas money, wallets that are contracts."""

from collections.abc import Callable

from eth_account.signers.local import LocalAccount
from web3.types import RPCEndpoint

from contracts.chain.client import Chain
from contracts.orders import new_account

TOKEN = 1_000_000  # smallest units

Funded = Callable[..., list[LocalAccount]]  # the fixture `funded`


def rpc(chain: Chain, method: str, *parameters: object) -> object:
    """One of anvil's own calls, such as evm_increaseTime."""
    return chain.w3.provider.make_request(RPCEndpoint(method), list(parameters))["result"]


def contract_wallet(chain: Chain, owner: LocalAccount) -> str:
    """The address of an ERC-1271 wallet that says yes to what its owner has signed (EIP-2098)."""
    digest, v, r, s = "600435600052", "60843560ff1c601b01602052", "606435604052", "60843560011b60011c606052"
    ecrecover, is_owner = "602060006080600060015afa50", f"60005173{owner.address[2:]}14"
    answer = "631626ba7e60e01b0260005260206000f3"
    address: str = new_account().address
    rpc(chain, "anvil_setCode", address, f"0x{digest}{v}{r}{s}{ecrecover}{is_owner}{answer}")
    return address


def give_gas_money(chain: Chain, address: str, ether: int = 100) -> None:
    rpc(chain, "anvil_setBalance", address, hex(ether * 10**18))


def pass_time(chain: Chain, seconds: int) -> None:
    """Makes a block whose time is `seconds` from now. (From the newest block, the clock of a chain that had idled would
    fall behind this machine's.)
    """
    rpc(chain, "evm_increaseTime", seconds)
    rpc(chain, "evm_mine")
