"""A search, an ensemble or a pipeline as a Ray Job on a cluster that is elsewhere."""
