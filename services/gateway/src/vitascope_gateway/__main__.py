"""``python -m vitascope_gateway``."""

from vitascope_gateway.main import main

if __name__ == "__main__":
    main()
