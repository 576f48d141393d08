"""The worker agent: trains leased jobs in a sandbox, checkpoints them and gets paid."""
