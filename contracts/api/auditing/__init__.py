"""What market, approver and arbiter tell each other of audits."""
