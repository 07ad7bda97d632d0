"""From a bundle to an HTTP service and its client.

In: a bundle folder. Out: an HTTP service (see api.py for its routes).
"""
