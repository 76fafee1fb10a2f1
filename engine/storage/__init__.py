"""Store and find data: folders and buckets, workspaces, bundles."""
