"""Arithmetic over lists of tensors, in few kernel launches.

These are the ``_foreach_*`` functions of torch's own optimisers. They are private in torch; this
module is the only one that names them. A trailing underscore marks a function that changes its
first argument in place.
"""

import torch

add_ = torch._foreach_add_
addcmul = torch._foreach_addcmul
addcmul_ = torch._foreach_addcmul_
clamp_max_ = torch._foreach_clamp_max_
copy_ = torch._foreach_copy_
lerp_ = torch._foreach_lerp_
mul = torch._foreach_mul
mul_ = torch._foreach_mul_
norm = torch._foreach_norm
reciprocal_ = torch._foreach_reciprocal_
sub = torch._foreach_sub
