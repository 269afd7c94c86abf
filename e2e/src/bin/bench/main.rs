//! `make bench`: figures, each beside its limit. Arguments choose among them: `policies`, `pss`.

mod policies;
mod pss;

use std::process::ExitCode;

use anyhow::Result;

#[tokio::main]
async fn main() -> ExitCode {
    match bench().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench() -> Result<bool> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|it| it == name);
    let mut good = true;
    if wanted("pss") {
        good &= pss::bench()?;
    }
    if wanted("policies") {
        good &= policies::bench().await?;
    }
    Ok(good)
}

/// Prints a figure beside its limit, and says whether it holds.
fn figure(what: &str, value: f64, limit: f64, unit: &str) -> bool {
    let holds = value <= limit;
    println!("{what}: {value:.2} {unit} (limit {limit} {unit}){}", if holds { "" } else { "  MISSED" });
    holds
}

/// Prints a figure that must be at least so high, and says whether it is.
fn at_least(what: &str, value: f64, limit: f64, unit: &str) -> bool {
    let holds = value >= limit;
    println!("{what}: {value:.2} {unit} (at least {limit} {unit}){}", if holds { "" } else { "  MISSED" });
    holds
}
