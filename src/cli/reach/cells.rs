//! One connection each: from whom, to whom, on what port, whether it is allowed, and by what.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::IpAddr,
};

use rampart_reach::{Analysis, End, Index, Policy, Protocol, Verdict};
use serde::Serialize;

use crate::cli::terminal::{Paint, Tone};

/// A connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cell {
    from: String,
    to: String,
    port: u16,
    /// The last port of a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_port: Option<u16>,
    protocol: String,
    allowed: bool,
    /// Policies that allow it, or that isolate the end which denies it.
    by: Vec<String>,
}

/// What is asked.
pub(super) struct Asked {
    from: Vec<(String, End)>,
    to: Vec<(String, End)>,
    port: Option<(Protocol, u16)>,
    /// Whether a pod is asked about itself.
    itself: bool,
}

impl Asked {
    /// From every pod to every pod.
    pub(super) fn everything(index: &Index, port: Option<(Protocol, u16)>) -> Self {
        Self { from: pods(index), to: pods(index), port, itself: true }
    }

    /// From some to some others.
    ///
    /// # Errors
    /// When one is no pod that there is, and no address.
    pub(super) fn of(
        index: &Index,
        from: Option<&str>,
        to: Option<&str>,
        port: Option<(Protocol, u16)>,
    ) -> Result<Self, String> {
        let ends = |named: Option<&str>, flag: &str| match named {
            None => Ok(pods(index)),
            Some(named) => end(index, named).map_err(|why| format!("{flag}: {why}")),
        };
        Ok(Self { from: ends(from, "--from")?, to: ends(to, "--to")?, port, itself: false })
    }

    pub(super) fn cells(&self, analysis: &Analysis<'_>, policies: &[Policy]) -> Vec<Cell> {
        let mut cells = vec![];
        for (to_name, to) in &self.to {
            let ports = self.ports(analysis, *to);
            for (from_name, from) in self.from.iter().filter(|(_, from)| self.itself || from != to) {
                for (protocol, first, last) in &ports {
                    let Verdict { allowed, by } = analysis.verdict(*from, *to, (*protocol, *first));
                    let policies = by.iter().filter_map(|by| policies.get(by.policy));
                    let by: BTreeSet<String> = policies.map(|it| format!("{}/{}", it.namespace, it.name)).collect();
                    cells.push(Cell {
                        from: from_name.clone(),
                        to: to_name.clone(),
                        port: *first,
                        end_port: (last != first).then_some(*last),
                        protocol: protocol.to_string(),
                        allowed,
                        by: by.into_iter().collect(),
                    });
                }
            }
        }
        cells.sort_by(|one, other| (&one.from, &one.to).cmp(&(&other.from, &other.to)));
        cells
    }

    /// Ports on which a destination is asked: first and last.
    fn ports(&self, analysis: &Analysis<'_>, to: End) -> BTreeSet<(Protocol, u16, u16)> {
        if let Some((protocol, port)) = self.port {
            return [(protocol, port, port)].into();
        }
        let pod = match to {
            End::Pod(pod) => analysis.index().pods().get(pod),
            End::Address(_) => None,
        };
        let declared = pod.into_iter().flat_map(|pod| &pod.ports);
        let declared: BTreeSet<_> = declared.map(|it| (it.protocol, it.port, it.port)).collect();
        if !declared.is_empty() {
            return declared;
        }
        analysis.cuts().ports().iter().map(|it| (it.protocol, it.first, it.last)).collect()
    }
}

fn pods(index: &Index) -> Vec<(String, End)> {
    let named =
        |(place, pod): (usize, &rampart_reach::Pod)| (format!("{}/{}", pod.namespace, pod.name), End::Pod(place));
    index.pods().iter().enumerate().map(named).collect()
}

fn end(index: &Index, named: &str) -> Result<Vec<(String, End)>, String> {
    if let Ok(address) = named.parse::<IpAddr>() {
        return Ok(vec![(named.to_owned(), End::Address(address))]);
    }
    let found: Vec<_> = pods(index).into_iter().filter(|(name, _)| name == named).collect();
    if found.is_empty() {
        return Err(format!("there is no pod {named:?}: write NAMESPACE/NAME, or an address outside of the cluster"));
    }
    Ok(found)
}

/// A table for people.
pub(super) fn table(cells: &[Cell], out: &mut impl Write, paint: Paint) -> io::Result<()> {
    let port = |cell: &Cell| match cell.end_port {
        Some(end) => format!("{}-{end}/{}", cell.port, cell.protocol),
        None => format!("{}/{}", cell.port, cell.protocol),
    };
    let by = |cell: &Cell| if cell.by.is_empty() { "nothing isolates".to_owned() } else { cell.by.join(", ") };
    let rows = cells.iter().map(|cell| {
        let allowed = if cell.allowed { "allowed" } else { "denied" };
        [cell.from.clone(), cell.to.clone(), port(cell), allowed.to_owned(), by(cell)]
    });
    let header = ["FROM", "TO", "PORT", "VERDICT", "BY"].map(ToOwned::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max();
    let widths: Vec<usize> = (0..5).map(|column| width(column).unwrap_or_default()).collect();
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|column| widths.get(column).copied().unwrap_or_default());
    for (nth, [from, to, port, allowed, by]) in rows.iter().enumerate() {
        let tone = match (nth, allowed.as_str()) {
            (0, _) => Tone::Plain,
            (_, "allowed") => Tone::Good,
            _ => Tone::Bad,
        };
        let allowed = paint.cell(tone, allowed, fourth);
        let line = format!("{from:first$}  {to:second$}  {port:third$}  {allowed}  {by}");
        writeln!(out, "{}", if nth == 0 { paint.head(line) } else { line })?;
    }
    Ok(())
}
