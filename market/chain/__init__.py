"""What the market takes from the chain and does there, besides clearing."""
