"""theano.tensor.signal.downsample, in terms of theano.tensor.signal.pool: the names and the arguments of 2014."""

from theano.tensor.signal.pool import Pool, max_pool_2d_same_size, pool_2d

__all__ = ["DownsampleFactorMax", "max_pool_2d", "max_pool_2d_same_size"]


def max_pool_2d(input, ds, ignore_border=False, st=None, padding=(0, 0), mode="max"):
    """Pooling over the last two dimensions, by Theano's pool_2d.

    Parameters
    ----------
    input : variable of 2 dimensions or more
    ds : pair of int
        Size of a window, (rows, columns).
    ignore_border : bool
        Whether a window that does not fit into the image is left out.
    st : pair of int, optional
        Pixels between windows; None: ds.
    padding : pair of int
        Pixels around the image; only with ignore_border.
    mode : {'max', 'sum', 'average_inc_pad', 'average_exc_pad'}

    Returns
    -------
    variable
    """
    return pool_2d(input, ws=ds, ignore_border=bool(ignore_border), stride=st, pad=padding, mode=mode)


class DownsampleFactorMax(object):
    """The windows of a pooling, to be called with the images: what the op of this name was.

    Takes the arguments of max_pool_2d without the first one. It is no op: the op in the graph is Theano's Pool.
    """

    def __init__(self, ds, ignore_border=False, st=None, padding=(0, 0), mode="max"):
        self.ds = tuple(ds)
        self.ignore_border = bool(ignore_border)
        self.st = self.ds if st is None else tuple(st)
        self.padding = tuple(padding)
        self.mode = mode

    def __call__(self, x):
        return Pool(self.ignore_border, mode=self.mode)(x, self.ds, self.st, self.padding)

    @staticmethod
    def out_shape(imgshape, ds, ignore_border=False, st=None, padding=(0, 0)):
        """The shape of the output, as a list, for images of shape `imgshape`: ints or scalar variables."""
        return Pool.out_shape(imgshape, ws=ds, ignore_border=bool(ignore_border), stride=st, pad=padding)
