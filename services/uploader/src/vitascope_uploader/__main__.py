"""``python -m vitascope_uploader``."""

from vitascope_uploader.main import main

if __name__ == "__main__":
    main()
