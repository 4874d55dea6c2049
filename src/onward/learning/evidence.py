class Evidence:
    pass


def evidence_of(*a):
    pass
