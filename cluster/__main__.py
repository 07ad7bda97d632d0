"""`python -m cluster`: the `consilium` command where no script of it is installed."""

from cluster.cli import main

if __name__ == "__main__":
    main()
