"""Fixtures that several packages' tests share."""

pytest_plugins = ["frame_fixtures"]
