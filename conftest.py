"""Fixtures that several packages' tests share."""

pytest_plugins = ["frame_fixtures", "nats_fixtures", "s3_fixtures"]
