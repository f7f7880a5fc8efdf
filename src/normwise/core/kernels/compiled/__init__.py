"""The loops behind `cpu`: numba, float32 or float64, one pass over memory each.

    planes  (n, c, l)  a group and channel: positions are summed, up to an end or where a mask says
    rows    (r, k)     a group and column: nothing inside a row is summed; rows lie group by group, or are scattered
    tables  (g, c)     what is small: the coefficients of a standardisation, and their derivatives
    blocks             sums of a block, and how blocks are merged
    fused              measure, standardise and apply, and the way back, in one call each
    team               a range shared by torch's own threads
    loop               how a loop is compiled, and when it is compiled anew

`low, high` is a range of the axis that threads share (channels, columns, samples or rows); no result depends on how it
is shared. Planes come in the order of their groups, `order[start[g]:start[g + 1]]`, an empty order being the natural
one; so do rows that lie `start[g]:start[g + 1]`, while scattered ones keep up the sums of all groups at once. `end[i]`
is one past the last valid position of plane i; a mask `(1, 0)` stands for none.

Slices are taken once and indexed from 0, and loops stand inline: otherwise they are not vectorised.

Sums run over blocks in the dtype of the values, about a pivot near the mean, and blocks are merged in float64 (Chan,
Golub and LeVeque 1979). `x * scale + shift` is computed as `(x - zero) * slope + rest` with `zero` near the crossing,
so that an offset of x costs no digits. NaN and infinity survive: no fast-math flag assumes them away.
"""
