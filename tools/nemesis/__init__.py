"""Nemesis: random faults, drawn from a seed, against a real cluster that works meanwhile."""
