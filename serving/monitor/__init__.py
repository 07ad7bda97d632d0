"""What operators watch.

In: requests and predictions. Out: metrics, drift, an access log, an audit log, traces.
"""
