//! Arguments → subcommand → exit code.

use std::process::ExitCode;

/// Fewer cycles per request than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Only an earlier call in this process could make it fail, and then a provider is installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tollgate::cli::main()
}
