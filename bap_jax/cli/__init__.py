"""The command line: arguments, and what is shown of what the floor below computes."""
