//! The admin listener: health, readiness, metrics. Its own thread and runtime.
