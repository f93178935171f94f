"""One module a command. None imports torch before its command runs: `--help` must be instant."""
