"""Audits as a market sees them: what approvers say of them, and Bids that are replays."""
