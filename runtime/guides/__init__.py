"""Text that follows a JSON schema, a regular expression or a grammar: which tokens may come next (docs/constraints.md).

`guide.py` is what generation asks; `constraint.py` what a text has to follow; `guides.py` makes guides for a model's tokenizer and
`token_guide.py` is one of them; `vocabulary.py` tells llguidance what tokens write, `library.py` keeps its failures apart from the
program's, and `masks.py` computes beside the engines.
"""
