"""Images on disk: folders, lists, containers and shards, decoded by the same rules."""
