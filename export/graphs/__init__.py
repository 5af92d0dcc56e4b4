"""Stage graphs: what PyTorch's stages become, and the forms that compilers are given.

modules.py         the models' modules as they appear in a graph
export_stage.py    a stage of a PyTorch model -> a portable graph; all else here needs no torch
quick_exporter.py  torch's exporter, without what it does again for every graph
functions.py       bodies of the `foveal` domain's ops in standard ONNX
dialect.py         the ONNX vocabularies a graph can be written in
change_dialect.py  a graph in another of them
resident.py        the form in which rows stay where the engines keep them
gpu.py             all that compilers for GPUs ask of a graph: dialect, resident form, fixed sizes
sampler.py         the graph that draws the next token
nodes.py           small edits of a graph in memory
saving.py          graphs to files
"""
