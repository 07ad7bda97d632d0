"""A study: which trials come, where they run, what is kept of them, and how nothing is lost.

In: a config and a Ray. Out: a study folder.
"""
