"""The client's delegate: checks each reported checkpoint and signs for it. Its own process, with its own key."""
