"""What people type: each file is a group of commands that parse, call one function, and print."""
