"""Where things lie: folders and buckets, workspaces, bundles."""
