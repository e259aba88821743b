"""The upscaler: larger frames."""
