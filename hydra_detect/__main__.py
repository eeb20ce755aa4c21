"""`python -m hydra_detect` is `hydra-detect`."""

from hydra_detect.cli import main

if __name__ == "__main__":
    main()
