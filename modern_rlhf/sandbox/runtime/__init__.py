"""What runs in the sandbox's own processes: standard library and ctypes only.

These modules are imported by clean interpreters started with `boot.py`; what the trainer imports of
them are frames and constants, it runs none of it. They import nothing of the package outside this folder.

    coordinator  routes programs to workers, restarts what died
    worker       supervises one judgement after the other (owns the tests)
    zygote       a clean process that forks confined children
    candidate    the child that runs generated code and serves calls; never sees a test
    tester       the child that runs tests too complex to be lowered to data
"""
