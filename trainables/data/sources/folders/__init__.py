"""Images in folders: layouts, manifests and their checks."""
