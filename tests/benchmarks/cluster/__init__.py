"""What running by Ray costs, against the same work in one process."""
