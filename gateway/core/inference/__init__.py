"""The inference APIs of OpenAI, one module each: what may be asked, and what an answer says.

`request` has what all of them share; whoever runs a call knows only that. A new API is a module
here, its judge in `judges`, and a route.
"""
