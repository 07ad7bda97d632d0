"""From HTTP to the service and back.

In: requests. Out: answers, or problem documents; front.py is where each request arrives.
"""
