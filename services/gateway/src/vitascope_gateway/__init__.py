"""The gateway: OpenAI's API for images and videos, checked against the pools' cards before anything is queued."""
