"""What the command-line tools do."""
