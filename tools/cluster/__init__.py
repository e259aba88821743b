"""A whole cluster on loopback: real servers and every service as a process of its own."""
