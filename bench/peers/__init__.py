"""foveal beside other libraries: the same model in each, every one in a process and an environment of its own, in turn.

`python -m foveal.bench.peers DIRECTORY`: the tables of docs/performance.md.
"""
