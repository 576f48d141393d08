"""The agent: what it offers, which leases it has, and the money around them."""
