//! KeyRecords in a file, one a line as JSON.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    num::NonZero,
    ops::Range,
    path::Path,
    thread::{self, available_parallelism},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{
    api::KeyRecordSpec,
    keys::verify::{Changes, Verifier},
};

/// How much is read at once, in bytes.
const BUFFER: usize = 1 << 18;

/// No record is shorter, in bytes: its digest alone is half of it.
const SHORTEST: u64 = 128;

/// A KeyRecord in a file, as far as it matters.
#[derive(Deserialize)]
struct Line {
    metadata: Named,
    spec: KeyRecordSpec,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Reads KeyRecords on all cores. A record that can't be used is told and left out. Returns how many keys there are.
pub(super) fn read(path: &Path, verifier: &Verifier) -> Result<usize> {
    let metadata = fs::metadata(path).with_context(|| format!("{} can't be read", path.display()))?;
    // A pipe has neither length nor middle.
    let (length, count) = if metadata.is_file() {
        verifier.changes().reserve(about(path, metadata.len())?);
        (metadata.len(), available_parallelism().map_or(1, NonZero::get))
    } else {
        (u64::MAX, 1)
    };
    thread::scope(|scope| {
        let parts = parts(length, u64::try_from(count).unwrap_or(1));
        let readers: Vec<_> = parts.map(|part| scope.spawn(move || take(path, part, verifier.changes()))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().unwrap_or_else(|_| bail!("a reader panicked")))
    })
    .with_context(|| path.display().to_string())?;
    Ok(verifier.changes().commit())
}

/// How many lines a file of this length has about: its first one says how long they are.
fn about(path: &Path, length: u64) -> Result<usize> {
    let first = BufReader::new(File::open(path)?).skip_until(b'\n')?;
    let lines = length / u64::try_from(first)?.max(SHORTEST);
    Ok(usize::try_from(lines)?)
}

/// About equal parts of a length.
fn parts(length: u64, count: u64) -> impl Iterator<Item = Range<u64>> {
    let edge = move |nth: u64| if nth == count { length } else { length / count * nth };
    (0..count).map(move |nth| edge(nth)..edge(nth + 1))
}

/// Takes in the records whose lines begin in a part of a file.
fn take(path: &Path, part: Range<u64>, mut keys: Changes) -> Result<()> {
    let mut file = BufReader::with_capacity(BUFFER, File::open(path)?);
    let (mut at, mut number, mut line) = (part.start, 0_u64, vec![]);
    if part.start > 0 {
        // The line that is under way belongs to the part before; where one has just ended, there is none.
        file.seek(SeekFrom::Start(part.start - 1))?;
        at = part.start - 1 + u64::try_from(file.skip_until(b'\n')?)?;
    }
    while at < part.end {
        line.clear();
        let length = file.read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        (at, number) = (at + u64::try_from(length)?, number + 1);
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Line { metadata: Named { name }, spec } =
            parse(&line).with_context(|| format!("line {}", number + lines_before(path, part.start)))?;
        if let Err(problem) = keys.apply(&name, &spec) {
            tracing::warn!(id = name, %problem, "a KeyRecord can't be used: its key is refused");
        }
    }
    Ok(())
}

/// As text: looking for what is no UTF-8 once costs less than in each string.
fn parse(line: &[u8]) -> Result<Line> {
    Ok(serde_json::from_str(str::from_utf8(line)?)?)
}

/// How many lines begin before a place in a file.
fn lines_before(path: &Path, place: u64) -> u64 {
    if place == 0 {
        return 0;
    }
    let read = File::open(path).map(|file| BufReader::with_capacity(BUFFER, file.take(place)).split(b'\n'));
    read.map_or(0, |lines| lines.map_while(Result::ok).fold(0, |count, _| count + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: usize) -> String {
        let digest = "0".repeat(64);
        format!(
            r#"{{"metadata": {{"name": "{id:08}"}}, "spec": {{"apiKey": {{"namespace": "n", "name": "k", "version": 1}},
            "digest": "sha256:{digest}", "owner": {{"customerId": "n"}}, "expiresAt": "2100-01-01T00:00:00Z",
            "state": "Active", "limits": {{"perSecond": 1, "burst": 1, "perMinute": 1, "perHour": 1, "perDay": 1}}}}}}"#
        )
        .replace('\n', " ")
    }

    fn file(lines: &[String]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), lines.join("\n")).unwrap();
        file
    }

    #[test]
    fn every_record_of_a_file_is_read_once() {
        for count in [0, 1, 2, 3, 5000] {
            let lines: Vec<String> = (0..count).map(record).collect();
            assert_eq!(read(file(&lines).path(), &Verifier::default()).unwrap(), count);
        }
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let mut lines: Vec<String> = (0..100).map(record).collect();
        lines[70] = "{}".into();
        let error = format!("{:#}", read(file(&lines).path(), &Verifier::default()).unwrap_err());
        assert!(error.contains("line 71: missing field `metadata`"), "{error}");
    }

    #[test]
    fn a_line_belongs_to_the_part_that_it_begins_in() {
        let file = file(&[record(1), String::new(), record(22), record(3)]);
        let length = fs::metadata(file.path()).unwrap().len();
        for middle in 0..=length {
            let verifier = Verifier::default();
            take(file.path(), 0..middle, verifier.changes()).unwrap();
            take(file.path(), middle..length, verifier.changes()).unwrap();
            assert_eq!(verifier.changes().commit(), 3, "parted at {middle}");
        }
    }
}
