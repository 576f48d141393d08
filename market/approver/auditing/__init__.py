"""What an approver does under audited rules: draws, has replayed, compares, and acts on what differs."""
