"""Is slow to import, at module level and in a class body."""
from expect import begin, clock

until = begin("module being imported")
while clock() < until: pass  # HERE


class Slow:
    class Nested:
        until = begin("class body within a class body, being imported")
        while clock() < until: pass  # HERE
