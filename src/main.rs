//! The `rampart` binary: parse arguments, hand over to a subcommand.

use std::process::ExitCode;

use rampart::cli::Cli;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return ExitCode::from(3);
    }
    Cli::from_args().run()
}
