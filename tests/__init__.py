# Before any test imports Theano: convnet_ops gives it a BLAS.
import convnet_ops  # noqa: F401
