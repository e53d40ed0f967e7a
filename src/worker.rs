//! One core: its runtime, listeners, upstream pool and limiter.
