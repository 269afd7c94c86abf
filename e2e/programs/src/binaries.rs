//! Builds the programs of the control plane from their Go modules, once, into a cache outside the
//! repository that is keyed by everything that goes into them.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{fetch, progress::Progress};

/// The Kubernetes version that tests and the demo use unless they name another.
pub const DEFAULT_KUBERNETES: &str = "1.37.1";
/// The oldest Kubernetes version that Rampart supports.
pub const OLDEST_KUBERNETES: &str = "1.35.4";

/// Without symbols and debug information.
pub(crate) const STRIPPED: &str = "-s -w";

/// Paths of the built programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub apiserver: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
    /// kube-scheduler.
    pub scheduler: PathBuf,
    /// kwok.
    pub kwok: PathBuf,
}

/// Paths of the built programs of a real node.
#[derive(Debug, Clone)]
pub struct NodeBinaries {
    /// kubelet.
    pub kubelet: PathBuf,
    /// kube-proxy.
    pub proxy: PathBuf,
    /// Calico's agent, which enforces NetworkPolicies.
    pub felix: PathBuf,
    /// Calico's CNI plugin.
    pub calico: PathBuf,
    /// What runs in pods.
    pub agent: PathBuf,
}

/// One program to build: where its module is, and how long it took cold on two cores.
struct Program {
    name: &'static str,
    package: String,
    /// The main of a program that upstream offers as a function only, below `e2e/controlplane`.
    main: Option<PathBuf>,
    /// Holds `go.mod`, `go.sum`, and what stands in for other modules, below `e2e/controlplane`.
    module: PathBuf,
    ldflags: String,
    cold: Duration,
}

/// What a set of programs is called, and the programs.
struct Set {
    title: String,
    programs: Vec<Program>,
}

fn control_plane(kubernetes: &str) -> Set {
    let of_kubernetes = |name, seconds| Program::of_kubernetes(kubernetes, name, seconds);
    let kwok = Program {
        name: "kwok",
        package: "sigs.k8s.io/kwok/cmd/kwok".into(),
        main: None,
        module: "kwok".into(),
        ldflags: STRIPPED.into(),
        cold: Duration::from_secs(80),
    };
    let programs = vec![
        Program::of_own("etcd", "etcd".into(), STRIPPED, 85),
        of_kubernetes("kube-apiserver", 370),
        of_kubernetes("kube-controller-manager", 210),
        of_kubernetes("kube-scheduler", 25),
        kwok,
    ];
    Set { title: format!("control plane of Kubernetes {kubernetes}"), programs }
}

fn node(kubernetes: &str) -> Set {
    let programs = vec![
        Program::of_kubernetes(kubernetes, "kubelet", 35),
        Program::of_kubernetes(kubernetes, "kube-proxy", 15),
        Program::of_own("felix", "calico".into(), STRIPPED, 240),
        Program::of_own("calico", "calico".into(), STRIPPED, 20),
        Program::of_own("agent", "agent".into(), STRIPPED, 10),
    ];
    Set { title: format!("node of Kubernetes {kubernetes}, with Calico"), programs }
}

/// The programs of the given Kubernetes version, built now if the cache has not got them.
///
/// # Errors
/// When Go is missing, the version has no module below `e2e/controlplane/kubernetes`, or a build
/// fails; the text holds the end of Go's own output.
pub fn ensure(kubernetes: &str) -> Result<Binaries> {
    let [etcd, apiserver, controller_manager, scheduler, kwok] = built(&control_plane(kubernetes))?;
    Ok(Binaries { etcd, apiserver, controller_manager, scheduler, kwok })
}

/// The programs of a real node, likewise.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_node(kubernetes: &str) -> Result<NodeBinaries> {
    let [kubelet, proxy, felix, calico, agent] = built(&node(kubernetes))?;
    Ok(NodeBinaries { kubelet, proxy, felix, calico, agent })
}

/// kubectl, likewise.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_kubectl() -> Result<PathBuf> {
    let stamped = version_flags(DEFAULT_KUBERNETES);
    let kubectl = Program::of_own("kubectl", "kubectl".into(), &stamped, 60);
    let [kubectl] = built(&Set { title: "kubectl".into(), programs: vec![kubectl] })?;
    Ok(kubectl)
}

/// Helm, likewise.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_helm() -> Result<PathBuf> {
    let helm = Program {
        name: "helm",
        package: "helm.sh/helm/v4/cmd/helm".into(),
        main: None,
        module: "helm".into(),
        ldflags: STRIPPED.into(),
        cold: Duration::from_secs(260),
    };
    let [helm] = built(&Set { title: "Helm".into(), programs: vec![helm] })?;
    Ok(helm)
}

/// kubeconform, likewise.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_kubeconform() -> Result<PathBuf> {
    let kubeconform = Program {
        name: "kubeconform",
        package: "github.com/yannh/kubeconform/cmd/kubeconform".into(),
        main: None,
        module: "kubeconform".into(),
        ldflags: STRIPPED.into(),
        cold: Duration::from_secs(20),
    };
    let [kubeconform] = built(&Set { title: "kubeconform".into(), programs: vec![kubeconform] })?;
    Ok(kubeconform)
}

fn built<const N: usize>(set: &Set) -> Result<[PathBuf; N]> {
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let paths = set.programs.iter().map(|program| program.cached(&cache)).collect::<Result<Vec<_>>>()?;
    if paths.iter().any(|path| !path.exists()) {
        // One build at a time on a machine; whoever waited finds the work done.
        let lock = File::create(cache.join("lock"))?;
        lock.lock()?;
        build_missing(set, &paths)?;
    }
    paths.try_into().map_err(|_| anyhow::anyhow!("the list of programs and the fields of their paths differ"))
}

/// A file of the module that holds Calico, such as its CRDs.
///
/// # Errors
/// When Go can't get the module, or the file can't be read.
pub fn calico_file(name: &str) -> Result<String> {
    module_file("calico", "github.com/projectcalico/calico", name)
}

/// The CRDs of OpenReports, as their authors publish them.
///
/// # Errors
/// As [`calico_file`].
pub fn open_reports_crds() -> Result<String> {
    module_file("openreports", "github.com/openreports/reports-api", "config/install.yaml")
}

/// A file of a module that `go.mod` below `e2e/controlplane/PLACE` requires.
fn module_file(place: &str, module: &str, name: &str) -> Result<String> {
    read(&unpacked(&downloaded(&sources_dir().join(place), module)?)?.join(name))
}

/// Where the source of a Kubernetes version is unpacked.
///
/// # Errors
/// When Go can't get the module, or the version has none below `e2e/controlplane/kubernetes`.
pub fn kubernetes_source(version: &str) -> Result<PathBuf> {
    let module = sources_dir().join("kubernetes").join(format!("v{version}"));
    unpacked(&downloaded(&module, "k8s.io/kubernetes")?)
}

/// A file of a module of which nothing is built here, named with its version and its hash, as in `go.sum`.
///
/// # Errors
/// When Go can't get the module, it is another, or the file can't be read.
pub fn foreign_file(module: &str, hash: &str, name: &str) -> Result<String> {
    // In no module: nothing else of what it needs is asked for.
    let told = downloaded(tempfile::tempdir()?.path(), module)?;
    if told["Sum"] != hash {
        bail!("{module} is {}, not {hash}", told["Sum"]);
    }
    read(&unpacked(&told)?.join(name))
}

/// What Go tells of a module that it has got.
fn downloaded(dir: &Path, module: &str) -> Result<serde_json::Value> {
    let mut download = go(dir);
    download.args(["mod", "download", "-json", module]);
    let told = fetch::output(&mut download)?;
    if !told.status.success() {
        let why = [told.stderr, told.stdout].concat();
        bail!("go mod download {module}: {}", tail(&String::from_utf8_lossy(&why)));
    }
    Ok(serde_json::from_slice(&told.stdout)?)
}

fn unpacked(told: &serde_json::Value) -> Result<PathBuf> {
    Ok(told["Dir"].as_str().context("go mod download told no directory")?.into())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn build_missing(set: &Set, paths: &[PathBuf]) -> Result<()> {
    let missing: Vec<_> = set.programs.iter().zip(paths).filter(|(_, path)| !path.exists()).collect();
    let mut left: Duration = missing.iter().map(|(program, _)| program.cold).sum();
    let began = Instant::now();
    for (nth, (program, path)) in missing.iter().enumerate() {
        let title = format!("{}, built once: {} ({} of {})", set.title, program.name, nth + 1, missing.len());
        program.build(path, &Progress::new(title, program.cold, left))?;
        left = left.saturating_sub(program.cold);
    }
    if !missing.is_empty() {
        eprintln!("{} built in {} s", set.title, began.elapsed().as_secs());
    }
    Ok(())
}

/// `RAMPART_E2E_CACHE`, else `rampart-e2e` in the user's cache directory.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("RAMPART_E2E_CACHE") {
        return Ok(dir.into());
    }
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither RAMPART_E2E_CACHE nor XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("rampart-e2e"))
}

fn sources_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../controlplane")
}

impl Program {
    /// One whose main is below `e2e/controlplane`.
    fn of_own(name: &'static str, module: PathBuf, ldflags: &str, seconds: u64) -> Self {
        let main = Path::new(module.iter().next().unwrap_or_default()).join("cmd").join(name).join("main.go");
        let cold = Duration::from_secs(seconds);
        Self { name, package: format!("./cmd/{name}"), main: Some(main), module, ldflags: ldflags.to_owned(), cold }
    }

    fn of_kubernetes(kubernetes: &str, name: &'static str, seconds: u64) -> Self {
        let module = Path::new("kubernetes").join(format!("v{kubernetes}"));
        Self::of_own(name, module, &version_flags(kubernetes), seconds)
    }

    /// What it is built of, by its path in the module: the module's own files, and its main.
    fn files(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let module = sources_dir().join(&self.module);
        let unread = || format!("reading {}: is this version listed in e2e/controlplane?", module.display());
        let mut files = files_of(&module).with_context(unread)?;
        if let Some(main) = &self.main {
            // Shared by all versions of a module.
            let main = sources_dir().join(main);
            let text = fs::read(&main).with_context(|| format!("reading {}", main.display()))?;
            files.push((Path::new("cmd").join(self.name).join("main.go"), text));
        }
        Ok(files)
    }

    /// Where the program is, or will be, in the cache.
    fn cached(&self, cache: &Path) -> Result<PathBuf> {
        let mut key = Sha256::new();
        for (_, text) in self.files()? {
            key.update(text);
        }
        key.update(&self.ldflags);
        let key = hex::encode(key.finalize().iter().take(6).copied().collect::<Vec<u8>>());
        Ok(cache.join(format!("{}-{key}", self.name)))
    }

    fn build(&self, target: &Path, progress: &Progress) -> Result<()> {
        let scratch = tempfile::tempdir()?;
        for (name, text) in self.files()? {
            let path = scratch.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(scratch.path()))?;
            fs::write(path, text)?;
        }
        progress.report("reading the module", 0, 1);
        // It fetches what the build needs, which fetches nothing then.
        let listed = fetch::output(go(scratch.path()).args(["list", "-deps", &self.package]))?;
        if !listed.status.success() {
            bail!("go list {}: {}", self.name, tail(&String::from_utf8_lossy(&listed.stderr)));
        }
        let packages = listed.stdout.lines().count();

        let partial = target.with_extension("partial");
        let mut build = go(scratch.path())
            // Not -trimpath: with it, Go compiles anew what a module only replaces.
            .args(["build", "-v", "-ldflags", &self.ldflags, "-o"])
            .args([partial.as_os_str(), self.package.as_ref()])
            .stderr(Stdio::piped())
            .spawn()?;
        let mut output = String::new();
        let lines = BufReader::new(build.stderr.take().context("standard error of go")?).lines();
        for (done, line) in lines.map_while(Result::ok).enumerate() {
            progress.report(&line, done, packages);
            output.push_str(&line);
            output.push('\n');
        }
        if !build.wait()?.success() {
            bail!("go build {}: {}", self.name, tail(&output));
        }
        fs::rename(&partial, target)?;
        progress.finish();
        Ok(())
    }
}

/// What Go reads of a module, in the order of their paths in it, but for the mains of its programs.
fn files_of(module: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let (mut files, mut open) = (vec![], vec![module.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let is_of_go = path.extension().is_some_and(|it| it == "go" || it == "mod" || it == "sum");
            if is_of_go {
                files.push((path.strip_prefix(module)?.to_owned(), fs::read(&path)?));
            } else if path.is_dir() && path != module.join("cmd") {
                open.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Go, in the directory of a module.
pub(crate) fn go(dir: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(dir).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly");
    // Most packages are compiled before their garbage matters: that saves a quarter of a build. The largest take twice as
    // long where the limit is 1 GiB.
    go.env("GOGC", "off").env("GOMEMLIMIT", "2GiB");
    go
}

/// What makes a program of Kubernetes say its version.
fn version_flags(kubernetes: &str) -> String {
    let minor = kubernetes.split('.').nth(1).unwrap_or_default();
    let version = "-X k8s.io/component-base/version";
    format!("{STRIPPED} {version}.gitVersion=v{kubernetes} {version}.gitMajor=1 {version}.gitMinor={minor}")
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(20)).fold(String::new(), |all, line| all + "\n" + line)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The words above what a `go.mod` replaces to share what Go has compiled.
    const SHARED: &str = "// As the control plane has them";

    #[test]
    fn a_program_is_built_of_its_module_and_its_main_alone() -> Result<()> {
        let names = |program: &Program| -> Result<Vec<String>> {
            Ok(program.files()?.into_iter().map(|(path, _)| path.display().to_string()).collect())
        };
        let (plane, node) = (control_plane(DEFAULT_KUBERNETES), node(DEFAULT_KUBERNETES));
        assert_eq!(names(&plane.programs[1])?, ["go.mod", "go.sum", "cmd/kube-apiserver/main.go"]);
        assert_eq!(names(&plane.programs[4])?, ["go.mod", "go.sum"]);
        // With what stands in for a module.
        let felix = names(&node.programs[2])?;
        assert_eq!(felix.last().map(String::as_str), Some("cmd/felix/main.go"));
        assert!(felix.contains(&"ec2/types/types.go".to_owned()), "{felix:?}");
        assert!(!felix.contains(&"cmd/calico/main.go".to_owned()), "{felix:?}");
        Ok(())
    }

    #[test]
    fn what_is_compiled_once_has_the_versions_of_the_control_plane() -> Result<()> {
        let versions = |text: &str| -> BTreeMap<String, String> {
            let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let named = words.filter_map(|words| match *words {
                [module, "=>", _, version] | [module, version, "//", "indirect"] | [module, version] => {
                    version.starts_with('v').then(|| (module.to_owned(), version.to_owned()))
                }
                _ => None,
            });
            named.collect()
        };
        let of_plane = sources_dir().join("kubernetes").join(format!("v{DEFAULT_KUBERNETES}")).join("go.mod");
        let wanted = versions(&read(&of_plane)?);
        let mut compared = 0;
        for place in ["", "../judges"] {
            for entry in fs::read_dir(sources_dir().join(place))? {
                let path = entry?.path().join("go.mod");
                let text = fs::read_to_string(&path).unwrap_or_default();
                let Some((_, shared)) = text.split_once(SHARED) else { continue };
                for (module, version) in versions(shared) {
                    assert_eq!(Some(&version), wanted.get(&module), "{module} in {}", path.display());
                    compared += 1;
                }
            }
        }
        assert!(compared > 100, "{compared} versions compared");
        Ok(())
    }
}
