"""From a config to a service that answers by a better bundle, step by step."""
