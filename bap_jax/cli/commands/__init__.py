"""What the commands do: from parsed arguments to what is computed, written and shown; a module for each, loaded when called."""
