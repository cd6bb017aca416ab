"""`python -m livestock`: the same as the command `livestock`."""

from .cli import main

main()
