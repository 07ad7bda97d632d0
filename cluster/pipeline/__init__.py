"""From a config to a service that answers by a better bundle.

In: an experiment's YAML, whose `pipeline:` section names the service and the rules.
Out: a study, a bundle, a release of it, and a service that was left better or as it was.
"""
