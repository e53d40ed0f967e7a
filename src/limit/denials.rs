//! Denials remembered locally: a denied key is denied until its retry instant, without a call.
