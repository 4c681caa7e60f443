"""Files on any file system: local folders and object stores."""
