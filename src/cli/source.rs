//! Documents of files, directories and standard input.

mod yaml;

use std::{
    collections::HashSet,
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::Value;

use self::yaml::{documents, value};
use super::{BAD_INPUT, terminal::fit};

/// One object, where it came from, and where in its document it stands.
#[derive(Debug)]
pub(in crate::cli) struct Object {
    pub(in crate::cli) file: String,
    /// Number of the document in its file, from 0.
    pub(in crate::cli) document: usize,
    /// Line on which the document begins, from 1.
    pub(in crate::cli) line: usize,
    /// JSON Pointer to the object in its document: empty, or an item of a list.
    pub(in crate::cli) pointer: String,
    pub(in crate::cli) value: Value,
}

impl Object {
    /// Namespace of the object, which is `default` where it names none.
    pub(in crate::cli) fn namespace<'o>(&'o self, default: &'o str) -> &'o str {
        self.value.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or(default)
    }

    /// The object as something that could not be read.
    pub(in crate::cli) fn unreadable(&self, why: impl Into<String>) -> Unreadable {
        Unreadable { file: self.file.clone(), line: Some(self.line), why: why.into() }
    }
}

/// Group and kind of an object; the group of the core's own is empty.
pub(in crate::cli) fn group_kind(object: &Value) -> (&str, &str) {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    (text("apiVersion").split_once('/').map_or("", |(group, _)| group), text("kind"))
}

/// Something that could not be read.
#[derive(Debug)]
pub(in crate::cli) struct Unreadable {
    pub(in crate::cli) file: String,
    pub(in crate::cli) line: Option<usize>,
    pub(in crate::cli) why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.why),
            None => write!(f, "{}: {}", self.file, self.why),
        }
    }
}

/// Says what could not be read; the exit code says whether there was any.
pub(in crate::cli) fn complain(unreadable: &[Unreadable]) -> ExitCode {
    for it in unreadable {
        eprintln!("{}", fit(&it.to_string()));
    }
    if unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BAD_INPUT) }
}

/// What was found under some paths.
#[derive(Debug, Default)]
pub(in crate::cli) struct Found {
    pub(in crate::cli) objects: Vec<Object>,
    pub(in crate::cli) unreadable: Vec<Unreadable>,
}

/// The files of the given paths, each once: a directory means every .yaml, .yml and .json file below it.
pub(in crate::cli) fn files(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<Unreadable>) {
    let (mut walk, mut unreadable) = (Walk::default(), vec![]);
    for path in paths {
        let why = match walk.named(path) {
            Ok(0) => "holds no .yaml, .yml or .json file".into(),
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        unreadable.push(Unreadable { file: path.display().to_string(), line: None, why });
    }
    (walk.files, unreadable)
}

/// Files, each once however many paths lead to it.
#[derive(Default)]
struct Walk {
    files: Vec<PathBuf>,
    seen: HashSet<PathBuf>,
}

impl Walk {
    /// Adds what was named; says how many files that are.
    fn named(&mut self, path: &Path) -> io::Result<usize> {
        if path != Path::new("-") && path.is_dir() {
            return self.below(path, &real(path), &mut HashSet::new());
        }
        self.add(path.into(), real(path));
        Ok(1)
    }

    /// Adds the files below a directory. A link to a directory is followed unless it leads back or to where the walk has
    /// been; what begins with `..` is how a volume of a ConfigMap keeps its versions.
    fn below(&mut self, directory: &Path, here: &Path, been: &mut HashSet<PathBuf>) -> io::Result<usize> {
        let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::path);
        let mut found = 0_usize;
        for entry in entries {
            let (name, path, kind) = (entry.file_name(), entry.path(), entry.file_type()?);
            if name.as_encoded_bytes().starts_with(b"..") {
                continue;
            }
            let place = if kind.is_symlink() { real(&path) } else { here.join(name) };
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                if !here.starts_with(&place) && been.insert(place.clone()) {
                    found = found.saturating_add(self.below(&path, &place, been)?);
                }
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str());
            if extension.is_some_and(|it| ["yaml", "yml", "json"].contains(&it)) {
                self.add(path, place);
                found = found.saturating_add(1);
            }
        }
        Ok(found)
    }

    fn add(&mut self, path: PathBuf, place: PathBuf) {
        if self.seen.insert(place) {
            self.files.push(path);
        }
    }
}

/// A path without links. A pipe has none, nor has what is not there: each stands for itself.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

/// Every object under some paths.
pub(in crate::cli) fn read_all(paths: &[PathBuf]) -> Found {
    let (files, unreadable) = files(paths);
    let mut all = Found { objects: vec![], unreadable };
    for file in files {
        let Found { objects, unreadable } = read(&file);
        all.objects.extend(objects);
        all.unreadable.extend(unreadable);
    }
    all
}

/// Every object of a file; `-` is standard input.
pub(in crate::cli) fn read(path: &Path) -> Found {
    let file = if path == Path::new("-") { "<stdin>".into() } else { path.display().to_string() };
    let read = if path == Path::new("-") {
        let mut bytes = vec![];
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    };
    let read = read.map_err(|error| (None, error.to_string())).and_then(utf8);
    match read {
        Ok(text) => parse(&file, &text),
        Err((line, why)) => Found { objects: vec![], unreadable: vec![Unreadable { file, line, why }] },
    }
}

/// The text of a file; the error comes with the line, where there is one.
fn utf8(bytes: Vec<u8>) -> Result<String, (Option<usize>, String)> {
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return (None, "it is UTF-16: save it as UTF-8 (PowerShell: Out-File -Encoding utf8)".into());
        }
        let read = bytes.iter().take(error.utf8_error().valid_up_to());
        let line = read.filter(|byte| **byte == b'\n').count().saturating_add(1);
        (Some(line), "it is not UTF-8: save it as UTF-8".into())
    })
}

/// Every object of a text: YAML of many documents, or JSON, which is YAML too.
fn parse(file: &str, text: &str) -> Found {
    let mut found = Found::default();
    for (document, (line, text)) in documents(text).into_iter().enumerate() {
        match value(text) {
            Ok(Value::Null) => {}
            Ok(value) => flatten(file, (document, line), String::new(), value, &mut found),
            Err((below, why)) => {
                let line = Some(below.map_or(line, |below| line.saturating_add(below).saturating_sub(1)));
                found.unreadable.push(Unreadable { file: file.into(), line, why });
            }
        }
    }
    found
}

/// Takes lists apart.
fn flatten(file: &str, at: (usize, usize), pointer: String, mut value: Value, found: &mut Found) {
    let unreadable =
        |why: &str| Unreadable { file: file.into(), line: Some(at.1), why: format!("{why}{}", place(&pointer)) };
    let Some(object) = value.as_object() else {
        return found.unreadable.push(unreadable("not a Kubernetes object: it is no mapping"));
    };
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() || object.get("apiVersion").and_then(Value::as_str).unwrap_or_default().is_empty() {
        return found.unreadable.push(unreadable("not a Kubernetes object: apiVersion or kind is missing"));
    }
    if !(kind.ends_with("List") && object.contains_key("items")) {
        let (document, line) = at;
        unset_empty_namespace(&mut value);
        return found.objects.push(Object { file: file.into(), document, line, pointer, value });
    }
    let (kind, version) = (kind.trim_end_matches("List").to_owned(), object.get("apiVersion").cloned());
    let Value::Object(mut list) = value else { return };
    let Some(Value::Array(items)) = list.remove("items") else {
        return found.unreadable.push(unreadable("items is no list"));
    };
    for (index, mut item) in items.into_iter().enumerate() {
        // The items of a PodList need not say that they are Pods.
        if let (Some(item), false) = (item.as_object_mut(), kind.is_empty()) {
            item.entry("kind").or_insert_with(|| kind.clone().into());
            item.entry("apiVersion").or_insert_with(|| version.clone().unwrap_or_default());
        }
        flatten(file, at, format!("{pointer}/items/{index}"), item, found);
    }
}

/// An empty namespace is none, as for kubectl: a chart that quotes a value writes it where there is no value.
fn unset_empty_namespace(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("namespace").is_some_and(|it| it.is_null() || it == "")
    {
        metadata.remove("namespace");
    }
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" (at {pointer})") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rstest::rstest;
    use tempfile::TempDir;

    use super::*;

    /// Files below a directory of these files (which end in their extension), directories and links, by their names there.
    fn walked(files: &[&str], links: &[(&str, &str)]) -> Vec<String> {
        let dir = TempDir::new().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        for (link, to) in links {
            symlink(to, dir.path().join(link)).unwrap();
        }
        // What is named twice is read once, too.
        let (found, unreadable) = super::files(&[dir.path().into(), dir.path().join(files[0])]);
        assert!(unreadable.is_empty(), "{unreadable:?}");
        found.iter().map(|it| it.strip_prefix(dir.path()).unwrap().display().to_string()).collect()
    }

    #[rstest]
    #[case::links_that_lead_back(&["a.yaml", "d/b.json"], &[("loop", "."), ("up", ".."), ("d/loop", "..")], &["a.yaml", "d/b.json"])]
    #[case::a_volume_of_a_config_map(&["..2024/a.yaml"], &[("..data", "..2024"), ("a.yaml", "..data/a.yaml")], &["a.yaml"])]
    #[case::a_directory_in_one(&["..2024/sub/a.yaml"], &[("..data", "..2024"), ("sub", "..data/sub")], &["sub/a.yaml"])]
    #[case::another_directory(&["a.yaml", "p/b.yaml"], &[("o", "p"), ("p/q", "../o")], &["a.yaml", "o/b.yaml"])]
    #[case::two_names(&["a.yaml"], &[("b.yaml", "a.yaml"), ("c.yml", "b.yaml")], &["a.yaml"])]
    #[case::a_link_to_nothing_is_told_by_who_reads_it(&["a.yaml"], &[("b.yaml", "gone")], &["a.yaml", "b.yaml"])]
    #[case::a_directory_that_is_called_like_a_file(&["a.yaml", "d.yaml/b.yml"], &[("e.yaml", "d.yaml")], &["a.yaml", "d.yaml/b.yml"])]
    fn each_file_is_found_once(#[case] files: &[&str], #[case] links: &[(&str, &str)], #[case] found: &[&str]) {
        assert_eq!(walked(files, links), found);
    }

    fn kinds(found: &Found) -> Vec<(usize, usize, &str, &str)> {
        let of = |object: &'_ Object| (object.document, object.line);
        found
            .objects
            .iter()
            .map(|object| (of(object).0, of(object).1, object.pointer.as_str(), object.value["kind"].as_str().unwrap()))
            .collect()
    }

    #[test]
    fn documents_are_told_apart_and_a_broken_one_hides_no_other() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Pod\n---\nkind: [\n--- # third\napiVersion: v1\nkind: Service\ndata: |\n  ---\n";
        let found = parse("f.yaml", text);
        assert_eq!(kinds(&found), [(1, 2, "", "Pod"), (3, 7, "", "Service")]);
        assert_eq!(found.unreadable.len(), 1);
        assert!((5..=7).contains(&found.unreadable[0].line.unwrap()), "{:?}", found.unreadable);
    }

    #[test]
    fn a_document_may_say_where_it_ends() {
        let text = "apiVersion: v1\nkind: Pod\n...\napiVersion: v1\nkind: Service\n... # the end\n---\napiVersion: batch/v1\nkind: Job\n...\n";
        let found = parse("f.yaml", text);
        assert_eq!(kinds(&found), [(0, 1, "", "Pod"), (1, 4, "", "Service"), (2, 7, "", "Job")]);
        assert!(found.unreadable.is_empty(), "{:?}", found.unreadable);
    }

    #[test]
    fn lists_are_taken_apart() {
        let text = r#"{"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {}}, 1,
            {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Pod"}]}]}"#;
        let found = parse("f.json", text);
        assert_eq!(kinds(&found), [(0, 1, "/items/0", "Pod"), (0, 1, "/items/2/items/0", "Pod")]);
        assert!(found.unreadable[0].why.contains("/items/1"), "{:?}", found.unreadable);
    }

    #[rstest]
    #[case::quoted("namespace: \"\"", "default")]
    #[case::nothing("namespace:", "default")]
    #[case::left_out("name: p", "default")]
    #[case::named("namespace: shop", "shop")]
    fn an_empty_namespace_is_none(#[case] metadata: &str, #[case] namespace: &str) {
        let object = format!("apiVersion: v1\nkind: Pod\nmetadata:\n  {metadata}\n");
        let list =
            format!("apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata:\n    {metadata}\n");
        for text in [object, list] {
            let found = parse("f", &text);
            assert_eq!(found.objects[0].namespace("default"), namespace, "{text}");
        }
    }

    #[rstest]
    #[case::little_endian(b"\xff\xfea\0", None, "it is UTF-16")]
    #[case::big_endian(b"\xfe\xff\0a", None, "it is UTF-16")]
    #[case::latin_1(b"a: b\nc: \xe4\n", Some(2), "it is not UTF-8")]
    fn what_is_not_utf_8_is_named(#[case] bytes: &[u8], #[case] line: Option<usize>, #[case] said: &str) {
        let (at, why) = utf8(bytes.to_vec()).unwrap_err();
        assert!(at == line && why.starts_with(said), "{at:?} {why}");
    }

    #[test]
    fn what_is_no_object_is_named() {
        for text in ["[]", "a: b", "kind: Pod", "\"text\""] {
            assert_eq!(parse("f", text).unreadable.len(), 1, "{text}");
        }
        assert!(parse("f", "").objects.is_empty() && parse("f", "---\n\n---\n").unreadable.is_empty());
    }
}
