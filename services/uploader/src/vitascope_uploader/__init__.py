"""The uploader: chunks in, finished files out."""
