"""The doors of 2014: modules under which old code finds what it imports. Nothing is installed until one is imported.

    theano.py      theano.sandbox.cuda, theano.tensor.signal.downsample, theano.tensor.nnet.conv
    pylearn2.py    pylearn2.sandbox.cuda_convnet, and the former
    lasagne.py     lasagne.layers.cuda_convnet, and theano.tensor.signal.downsample
    __main__.py    python -m convnet_ops.compat SCRIPT: both, then the script
"""
