"""A bundle as a model repository of the Triton Inference Server, and the backend that runs there.

    tensors.py      what a request and a response hold: the config is written from it, and the backend reads and writes by it
    settings.py     how the server is to run it, as parameters of its config
    config.py       config.pbtxt
    repository.py   `export_triton`: the folder of a model, with the bundle in it
    requests.py     requests and responses as arrays
    lines.py        requests of one sequence, one after the other
    backend.py      what runs in the server

None of it needs torch or onnx: a repository is written wherever the bundle is, and the server has only the runtime.
"""
