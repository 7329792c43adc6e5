# How many layers below the heads every parameter of Vim lies, and its factor of the weight decay.
# As in BEiT's layer decay, which upstream's configs name: the embeddings are the lowest layer; vectors, positions and
# the class token do not decay. Of the keys that are part of a name the longest counts.
vectors = ('norm', 'mixer.D', 'mixer.conv1d.bias', 'mixer.conv1d_b.bias', 'mixer.dt_proj.bias', 'mixer.dt_proj_b.bias')
vim_layers = {
    **{f'backbone.layers.{i}.mixer': (24 - i, 1.0) for i in range(24)},
    **{f'backbone.layers.{i}.{name}': (24 - i, 0.0) for i in range(24) for name in vectors},
    'backbone.patch_embed': (25, 1.0),
    'backbone.patch_embed.proj.bias': (25, 0.0),
    'backbone.cls_token': (25, 0.0),
    'backbone.pos_embed': (25, 0.0),
}
