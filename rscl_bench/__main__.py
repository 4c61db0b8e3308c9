"""``python -m rscl_bench`` is the command ``rscl-bench``."""

from rscl_bench.cli import main

if __name__ == "__main__":
    main()
