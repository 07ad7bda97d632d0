"""What each site would have got from the others: a study's params trained anew without it.

In go a study's open images with a column of sites and one trial's params; out comes, for every
site with enough cases, what a classifier does there that was trained, calibrated and given its
threshold by all other sites.
"""
