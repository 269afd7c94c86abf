//! Work shared over the cores of the machine.

use std::{
    io::{BufRead as _, Write as _},
    num::NonZero,
    process::ExitCode,
};

use anyhow::Result;
use serde::Serialize;

use super::BAD_INPUT;

/// Lines that are read before they are answered.
const BATCH: usize = 4_096;

/// An answer to a line, by its number from 0.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer<T> {
    Known {
        i: usize,
        #[serde(flatten)]
        answer: T,
    },
    Unreadable {
        i: usize,
        error: String,
    },
}

/// Does shares of a list on every core, with the place at which each begins; the results are in order.
pub(in crate::cli) fn share<T: Sync, R: Send>(items: &[T], work: impl Fn(usize, &[T]) -> R + Sync) -> Result<Vec<R>> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(cores).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let shares = items.chunks(share).enumerate();
        let running: Vec<_> =
            shares.map(|(number, items)| scope.spawn(move || work(number.saturating_mul(share), items))).collect();
        let joined = running.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|result| result.map_err(|_| anyhow::anyhow!("a working thread panicked"))).collect()
    })
}

/// Answers every line of standard input with a line of JSON, in order. A bad line answers with its error, and the
/// exit code says so at the end.
pub(in crate::cli) fn filter<T: Serialize>(answer: impl Fn(&[u8]) -> Result<T> + Sync) -> Result<ExitCode> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::BufWriter::new(std::io::stdout().lock()));
    let (mut first, mut all_readable) = (0_usize, true);
    loop {
        let mut batch = vec![];
        while batch.len() < BATCH {
            let mut line = vec![];
            if input.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            batch.push(line);
        }
        if batch.is_empty() {
            break;
        }
        for answers in share(&batch, |place, lines| answers(lines, first.saturating_add(place), &answer))? {
            let (text, readable) = answers?;
            output.write_all(&text)?;
            all_readable &= readable;
        }
        first = first.saturating_add(batch.len());
    }
    output.flush()?;
    Ok(if all_readable { ExitCode::SUCCESS } else { ExitCode::from(BAD_INPUT) })
}

/// The answers, and whether every line could be read.
fn answers<T: Serialize>(
    lines: &[Vec<u8>],
    first: usize,
    answer: impl Fn(&[u8]) -> Result<T>,
) -> Result<(Vec<u8>, bool)> {
    let (mut text, mut readable) = (vec![], true);
    for (offset, line) in lines.iter().enumerate() {
        let i = first.saturating_add(offset);
        let answer = match answer(line) {
            Ok(answer) => Answer::Known { i, answer },
            Err(error) => Answer::Unreadable { i, error: format!("{error:#}") },
        };
        readable &= matches!(answer, Answer::Known { .. });
        serde_json::to_writer(&mut text, &answer)?;
        text.push(b'\n');
    }
    Ok((text, readable))
}
