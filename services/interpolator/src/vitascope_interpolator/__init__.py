"""The interpolator: frames between the frames of a chunk."""
