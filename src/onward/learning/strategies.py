def hooks_of(strategy):
    return list(strategy) if not isinstance(strategy, str) else []


def caveat(hooks, *, new_classes):
    return ""
