"""`python -m submitter` is the `submitter` command."""

from submitter.cli import main

main(prog_name="submitter")
