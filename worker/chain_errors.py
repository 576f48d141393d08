"""What an unreachable or confused Ethereum node raises: try again later, never crash."""

import requests
from web3.exceptions import Web3Exception

CHAIN_TROUBLE = (requests.RequestException, Web3Exception, ConnectionError, TimeoutError)
