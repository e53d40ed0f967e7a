//! The canonical form of a request target: one spelling for routing, keys and forwarding.
