"""How fast the service is: a bundle in; its images a second beside the limit's and other servers'.

`python -m tests.benchmarks.serve`; tables on stderr, one line of JSON on stdout.
"""
