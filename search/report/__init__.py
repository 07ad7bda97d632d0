"""The page of a study: one file that opens offline.

In: a study folder. Out: report.html.
"""
