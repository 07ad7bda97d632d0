"""Whether a machine, or each node of a cluster, has what searching and serving need."""
