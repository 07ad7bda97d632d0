"""How fast and how large a search is: `make bench-search` prints tables and one line of JSON.

Slow on purpose, and no part of the tests: only the sums they print are tested.
"""
