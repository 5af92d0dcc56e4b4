"""Text that follows a JSON schema, a regular expression or a grammar: which tokens may come next (docs/constraints.md).

`guide.py` is what generation asks, `constraint.py` what a text has to follow (`schema_errors.py`: where a schema is wrong;
`bounds.py`: what llguidance would let through);
`guides.py` makes guides for a model's tokenizer, and `token_guide.py` is one. Below them `vocabulary.py` tells llguidance what
tokens write, `matcher.py` is its parser of one text, `library.py` keeps its failures apart from the program's, and `masks.py`
computes beside the engines.
"""
