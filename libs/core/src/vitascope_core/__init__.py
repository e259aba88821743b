"""The words of Vitascope: jobs, plans, tasks, cards, errors and the ports that adapters fill.

Standard library only, so that the gateway, the workers and the tests share one vocabulary at no cost.
"""
