//! `rampart keys`.

mod ask;
mod list;
mod pattern;
mod place;
mod revoke;
mod rotate;
mod wait;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use http::{Method, Uri};
use secrecy::SecretString;

use super::FOUND;
use crate::keys::format::ApiKeyText;

/// Commands about API keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    List(list::List),
    Rotate(rotate::Rotate),
    Revoke(revoke::Revoke),
    Pattern(pattern::Pattern),
    /// Internal: tests a mounted key, in the Job that Rampart makes for each version.
    #[command(hide = true)]
    Selftest {
        /// Directory that the version Secret is mounted at.
        #[arg(long)]
        dir: PathBuf,
        /// Where a verifier answers over HTTP.
        #[arg(long)]
        verifier: Option<Uri>,
        /// A service that the key is for.
        #[arg(long, requires = "verifier", default_value = "")]
        audience: String,
        /// A permission that the key has.
        #[arg(long, requires = "verifier")]
        permission: Option<String>,
        /// A method that the key may use.
        #[arg(long, requires = "verifier", default_value = "GET")]
        method: Method,
    },
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(command) => command.run(),
            Self::Rotate(command) => command.run(),
            Self::Revoke(command) => command.run(),
            Self::Pattern(command) => command.run(),
            Self::Selftest { dir, verifier, audience, permission, method } => {
                let call = ask::Call { method, audience: &audience, permission: permission.as_deref() };
                let tested = selftest(&dir).and_then(|key| match verifier {
                    Some(verifier) => ask::admitted(&verifier, &key, call).map(|()| key),
                    None => Ok(key),
                });
                Ok(told(&tested))
            }
        }
    }
}

fn told(result: &Result<ApiKeyText, String>) -> ExitCode {
    match result {
        Ok(key) => {
            eprintln!("key {}: form, checksum and digest are right", key.id());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("rampart: the new key does not pass its test: {problem}");
            ExitCode::from(FOUND)
        }
    }
}

/// Checks form, checksum, id and digest; says what is wrong and never what the key is.
fn selftest(dir: &Path) -> Result<ApiKeyText, String> {
    use secrecy::ExposeSecret as _;
    let read =
        |name: &str| fs::read_to_string(dir.join(name)).map_err(|error| format!("{name} can't be read: {error}"));
    let text = SecretString::from(read("key")?);
    let key = ApiKeyText::parse(text.expose_secret()).map_err(|error| error.to_string())?;
    if read("id")? != key.id() {
        return Err("its id is not the one beside it".into());
    }
    if read("digest")? != key.digest() {
        return Err("its digest is not the one beside it".into());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unwrap_in_result, reason = "a test")]
    fn mounted(change: impl Fn(&mut [(&str, String); 3])) -> Result<String, String> {
        let key = ApiKeyText::new("acme", "0123abcd", &[7; 32]);
        let mut files = [("key", key.expose().to_owned()), ("id", key.id().to_owned()), ("digest", key.digest())];
        change(&mut files);
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in &files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let result = selftest(dir.path()).map(|key| key.id().to_owned());
        if let Err(problem) = &result {
            assert!(!problem.contains(key.expose()), "a problem never quotes the key");
        }
        result
    }

    #[test]
    fn what_a_selftest_notices() {
        assert_eq!(mounted(|_| {}), Ok("0123abcd".into()));
        assert!(mounted(|files| files[0].1.truncate(20)).is_err(), "a key that was cut");
        assert!(mounted(|files| files[1].1 = "99999999".into()).unwrap_err().contains("id"));
        assert!(mounted(|files| files[2].1 = "sha256:00".into()).unwrap_err().contains("digest"));
    }
}
