//! `rampart reach` beside cyclonus: every case that it generates, every cell as its simulated engine evaluates it.
//! No difference is allowed, cells of a pod to itself aside: Kubernetes always allows those.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{judges, operator};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Case {
    description: String,
    cells: Vec<Cell>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    cells: Vec<Cell>,
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    from: String,
    to: String,
    port: u16,
    protocol: String,
    allowed: bool,
}

impl Cell {
    fn connection(&self) -> (&str, &str, u16, &str) {
        (&self.from, &self.to, self.port, &self.protocol)
    }
}

#[test]
fn agrees_with_cyclonus_on_its_cases() -> Result<()> {
    let cases = judges::ask(&judges::network()?, &["cases"], vec![])?;
    let flags = ["reach", "--input", "jsonl", "--ip-block", "pods"];
    let answers = judges::ask(&operator::binary()?, &flags, cases.clone())?;
    ensure!(answers.len() == cases.len(), "{} answers to {} cases", answers.len(), cases.len());
    let (mut compared, mut itself, mut denied) = (0, 0, 0);
    for (case, answer) in cases.iter().zip(&answers) {
        let case: Case = serde_json::from_str(case)?;
        let answer: Answer = serde_json::from_str(answer).with_context(|| answer.clone())?;
        let ours: BTreeMap<_, bool> = answer.cells.iter().map(|it| (it.connection(), it.allowed)).collect();
        let mut differing = BTreeSet::new();
        for cell in &case.cells {
            if cell.from == cell.to {
                itself += 1;
                ensure!(ours.get(&cell.connection()) == Some(&true), "{}: {cell:?}", case.description);
            } else if ours.get(&cell.connection()) != Some(&cell.allowed) {
                differing.insert(cell);
            }
            compared += 1;
            denied += usize::from(!cell.allowed);
        }
        ensure!(differing.is_empty(), "{}: cyclonus says {differing:#?}", case.description);
    }
    println!("{} steps, {compared} cells ({itself} of a pod to itself, {denied} denied): no difference", cases.len());
    ensure!(cases.len() >= 256 && compared >= 123_669, "cyclonus has more: {} steps, {compared} cells", cases.len());
    Ok(())
}
