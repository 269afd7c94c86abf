//! Says which Kubernetes versions the harness knows: `versions default`, `versions oldest`.

use rampart_e2e::binaries::{DEFAULT_KUBERNETES, OLDEST_KUBERNETES};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("oldest") => println!("{OLDEST_KUBERNETES}"),
        _ => println!("{DEFAULT_KUBERNETES}"),
    }
}
