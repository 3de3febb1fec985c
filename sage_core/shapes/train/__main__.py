"""`python -m sage_core.shapes.train`."""

from .run import main

if __name__ == "__main__":
    main()
