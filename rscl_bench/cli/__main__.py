"""``python -m rscl_bench.cli``."""

from rscl_bench.cli import main

if __name__ == "__main__":
    main()
