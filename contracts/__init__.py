"""What two parties must agree on, on chain and on the wire."""
