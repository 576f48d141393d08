"""What an operator's market does to its own books: making them anew, comparing, mending, collecting, copying."""
