"""How many tokens a prompt is, before OpenAI says so: messages, tools, schemas, pictures, sound.

`measures` has what cannot be known here and is brought by whoever counts: a model's vocabulary.
Everything is exact where a rule is known, and errs upwards by little where none is.
"""
