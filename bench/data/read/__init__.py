"""Images as they lie on disk: folders, lists, containers and shards, decoded by one rule."""
