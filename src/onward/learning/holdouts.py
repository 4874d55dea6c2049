class Holdouts:
    names = []
    def state_dict(self): return {}
    def load_state_dict(self, s): pass
    def freeze(self,*a,**k): pass
def leak(*a): pass
