"""`python -m foveal.cli`."""

from . import main

main()
