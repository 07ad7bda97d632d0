"""Whether a machine, or each node of a cluster, has what searching and serving need.

In: a config or none, an address or none. Out: a finding a row, each with where, what, and the mend.
"""
