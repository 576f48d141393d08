"""What a process that trains does to torch before a recipe is loaded."""
