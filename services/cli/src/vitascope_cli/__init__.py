"""The command `vitascope`: every stage in one process, over the same workers as a cluster."""
