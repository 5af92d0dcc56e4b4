"""Stage graphs to TensorRT engines: one path for TensorRT 10.3 (JetPack 6), TensorRT 11 and TensorRT-RTX. Needs no torch.

options.py    what one may ask of the engines of a model
family.py     what the engines of one model have in common: library, dialect, limits
network.py    a stage graph, in the dialect, resident and of fixed sizes, parsed to a network
profiles.py   the shapes that it is built for: a decode step, and a prefill
turing.py     what stands in for float32 products, where the GPU's compiler has none
build.py      the network to an engine (progress.py: how far it is; forecast.py: the memory that takes)
layers.py     how the engine runs each matrix product, as the builder or the inspector lists its layers
record.py     who built it, on and for what
cache.py      engines that were built before
compile.py    all of this for one stage of a bundle
"""
