#!/usr/bin/env python3
"""A ZMQ broker of the event plane: publishers connect to the first address, subscribers to the second."""
import sys
import zmq

context = zmq.Context()
xsub, xpub = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
xsub.bind(sys.argv[1])
xpub.bind(sys.argv[2])
print("ready", flush=True)
zmq.proxy(xsub, xpub)
