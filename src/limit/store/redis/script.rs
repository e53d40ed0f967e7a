//! The scripts, their arguments and replies.
