"""The market's tables and files, and what a message or an event does to them. Knows no chain and no network."""
