"""What two parties must agree on, on chain and on the wire."""

from contracts.late_modules import put_off_bls

put_off_bls()  # here, since whoever imports eth_account has imported something of this package first
