"""`python -m bibwire` is `bibwire`."""

import sys

from bibwire.cli import main

if __name__ == "__main__":
    sys.exit(main())
