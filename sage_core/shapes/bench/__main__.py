"""`python -m sage_core.shapes.bench`."""

from .run import main

if __name__ == "__main__":
    main()
