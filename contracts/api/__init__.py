"""What travels between market, workers and clients: bodies, problem codes, a typed HTTP client, blob transfer."""
