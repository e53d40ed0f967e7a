//! One connection per worker, kept alive in the background.
