"""``python -m vitascope_cli``."""

from vitascope_cli.main import main

if __name__ == "__main__":
    main()
