"""Where it all runs: the `consilium` command and the connection to Ray.

In: what a person types. Out: calls of search, ensemble and serving, and one line for each mistake.
"""
