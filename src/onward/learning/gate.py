class Verdict:
    pass


def judge(*a, **k):
    pass
