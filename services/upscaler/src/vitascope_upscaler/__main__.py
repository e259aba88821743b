"""``python -m vitascope_upscaler``."""

from vitascope_upscaler.main import main

if __name__ == "__main__":
    main()
