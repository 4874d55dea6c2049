class Remembered:
    def __init__(self, *a):
        pass
