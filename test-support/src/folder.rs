use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use crate::{error::StartFailure, process::Minder};

/// A server's temporary folder, with the minder that removes it when this is dropped or this process is gone.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    account: Option<Account>,
    pub(crate) minder: Minder,
}

/// The account a server runs under where it refuses to run as root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

impl Folder {
    pub(crate) fn new(server: &str, account: Option<Account>) -> Result<Self, StartFailure> {
        let attempted = "make a temporary folder";
        let (minder, path) = Minder::start_with_folder(&format!("mmate-{server}"))
            .map_err(StartFailure::io(attempted))?;
        let folder = Self { path, account, minder };
        folder.hand_over(folder.path()).map_err(StartFailure::io(attempted))?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn account(&self) -> Option<Account> {
        self.account
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a folder inside that the server may write to.
    pub(crate) fn make_folder(&self, name: &str) -> Result<PathBuf, StartFailure> {
        let path = self.join(name);
        fs::create_dir(&path)
            .and_then(|()| self.hand_over(&path))
            .map_err(StartFailure::io(format!("make the folder {}", path.display())))?;
        Ok(path)
    }

    /// Writes a file that only the server's account may read.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf, StartFailure> {
        let path = self.join(name);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .and_then(|()| self.hand_over(&path))
            .map_err(StartFailure::io(format!("write {}", path.display())))?;
        Ok(path)
    }

    fn hand_over(&self, path: &Path) -> io::Result<()> {
        match self.account {
            Some(account) => chown(path, Some(account.user), Some(account.group)),
            None => Ok(()),
        }
    }
}

impl Account {
    /// The account to switch to: `name` if this process is root's, none otherwise.
    pub(crate) fn instead_of_root(name: &str) -> Result<Option<Self>, StartFailure> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let attempted = || format!("find the account `{name}` in /etc/passwd");
        let accounts = fs::read_to_string("/etc/passwd").map_err(StartFailure::io(attempted()))?;
        match Self::find(&accounts, name) {
            Some(account) => Ok(Some(account)),
            None => Err(StartFailure::io(attempted())(io::ErrorKind::NotFound.into())),
        }
    }

    fn find(accounts: &str, name: &str) -> Option<Self> {
        // passwd(5): name, password, user, group, …
        accounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [found, _, user, group, ..] = fields[..] else { return None };
            let account = Self { user: user.parse().ok()?, group: group.parse().ok()? };
            (found == name).then_some(account)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts = "root:x:0:0:root:/root:/bin/bash\nmysql2:x:7:8::/:/bin/false\nmysql:x:102:105:M:/:/bin/false\n";
        let account = Account::find(accounts, "mysql").unwrap();
        assert_eq!((account.user, account.group), (102, 105));
        assert!(Account::find(accounts, "postgres").is_none());
    }
}
