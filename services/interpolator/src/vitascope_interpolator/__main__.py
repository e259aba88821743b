"""``python -m vitascope_interpolator``."""

from vitascope_interpolator.main import main

if __name__ == "__main__":
    main()
