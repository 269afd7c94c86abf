//! `make bench`: figures, each beside its limit. Arguments choose among them: `pss`, `reach`, `check`, `webhook`,
//! `verify`, `envoy`, `floor`, `keys`, `retention`, `policies`.

mod check;
mod floor;
mod keys;
mod load;
mod pod;
mod policies;
mod process;
mod pss;
mod reach;
mod retention;
mod stage;
mod verify;
mod webhook;

use std::process::ExitCode;

use anyhow::Result;
use tikv_jemallocator::Jemalloc;

/// As in the product.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

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
    // The bench starts itself anew for what it compares with.
    match chosen.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [webhook::NULL, rest @ ..] => return webhook::null(rest).await,
        [check::PARSE, dir] => return check::parse(dir),
        [verify::CONSTANT, rest @ ..] => return verify::constant(rest).await,
        [reach::SCALE, rest @ ..] => return reach::one(rest),
        _ => {}
    }
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|it| it == name);
    let mut good = true;
    if wanted("pss") {
        good &= pss::bench()?;
    }
    if wanted("reach") {
        good &= reach::bench()?;
    }
    if wanted("check") {
        good &= check::bench()?;
    }
    if wanted("webhook") {
        good &= webhook::bench().await?;
    }
    if wanted("verify") {
        good &= verify::bench()?;
    }
    if wanted("envoy") {
        verify::through_envoy().await?;
    }
    if wanted("floor") {
        good &= floor::bench().await?;
    }
    if wanted("keys") {
        good &= keys::bench().await?;
    }
    if wanted("retention") {
        good &= retention::bench().await?;
    }
    if wanted("policies") {
        good &= policies::bench().await?;
    }
    Ok(good)
}

/// A number from the environment, for a bench that is to be shorter.
fn number_of(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(otherwise)
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

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 0.5)
}

/// The value below which this share of them lies.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn percentile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let nth = (values.len() as f64 * share) as usize;
    values.get(nth.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}
