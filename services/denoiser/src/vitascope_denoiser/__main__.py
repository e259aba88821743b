"""``python -m vitascope_denoiser``."""

from vitascope_denoiser.main import main

if __name__ == "__main__":
    main()
