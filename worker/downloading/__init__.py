"""Files of strangers by URL: no private address, no more bytes than were said, and ended at once when asked."""
