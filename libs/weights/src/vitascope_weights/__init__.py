"""Where a checkpoint lies, what it holds, and the networks that stay loaded."""
