"""What every program of ours begins with: its extras, its logs, what an operator has set."""
