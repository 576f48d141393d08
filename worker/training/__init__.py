"""What runs inside the sandbox, and the words it speaks with the agent. torch is imported here only."""
