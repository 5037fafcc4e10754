"""The command line without installing: ``python run_bench.py --help``."""

if __name__ == "__main__":
    from bench.cli import main  # in here, because every run's process imports this file too

    main()
