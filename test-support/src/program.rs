use std::{env, ffi::OsString, fs, path::PathBuf};

use crate::error::StartFailure;

/// A program that a package brings, and where it is to be looked for first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The package's name on Debian and Ubuntu.
    pub(crate) package: &'static str,
    /// Folders outside `PATH`; one `*` in the last place but one stands for a version, the highest of which wins.
    pub(crate) folders: &'static [&'static str],
}

impl Program {
    pub(crate) fn find(&self) -> Result<PathBuf, StartFailure> {
        self.folders
            .iter()
            .flat_map(|folder| versions(folder))
            .chain(env::split_paths(&search_path()))
            .map(|folder| folder.join(self.name))
            .find(|path| path.is_file())
            .ok_or(StartFailure::NotInstalled { program: self.name, package: self.package })
    }
}

/// `PATH` with the folders of system programs, which an ordinary user's often lacks.
pub(crate) fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

fn versions(folder: &str) -> Vec<PathBuf> {
    let Some((before, after)) = folder.split_once("/*/") else {
        return vec![PathBuf::from(folder)];
    };
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(before)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join(after)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let program = Program { name: "no-such-server", package: "its-package", folders: &[] };
        let message = program.find().unwrap_err().to_string();
        assert!(message.contains("`no-such-server` is not installed"), "{message}");
        assert!(message.contains("apt-get install its-package"), "{message}");
    }

    #[test]
    fn of_several_versions_the_highest_is_first() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "16", "15", "common"] {
            fs::create_dir_all(root.path().join(version).join("bin")).unwrap();
        }
        let found = versions(&format!("{}/*/bin", root.path().display()));
        let expected = ["16", "15", "9"].map(|version| root.path().join(version).join("bin"));
        assert_eq!(found, expected);
    }
}
