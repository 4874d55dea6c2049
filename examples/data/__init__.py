"""Real data for the examples and benchmarks, fetched when needed, never part of this project.

Each file is one data set, says its licence, and can be run:

    python -m examples.data.fashion_mnist DATA --parts 5
    python -m examples.data.mnist DATA --digits 0 1 2 3
    python -m examples.data.newsgroups DATA --topics 16
    python -m examples.data.movielens DATA --share 0.8
"""
