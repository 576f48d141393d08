"""What a job would pay, and which machines it would get: nothing of it is stored."""
