"""OpenAI's vocabularies, shipped in the package, and the counting of tokens with them.

`bpe` counts, `published` states what OpenAI published about each vocabulary, `vocabulary` is the
format of our files under `vocab/`, and `pack` rebuilds those files from the published ones.
Nothing here touches the network or a cache folder.
"""
