use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::error::StartFailure;

/// A server's temporary folder; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: TempDir,
    account: Option<Account>,
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
        let dir = tempfile::Builder::new()
            .prefix(&format!("mmate-{server}-"))
            .tempdir()
            .map_err(StartFailure::io(attempted))?;
        let folder = Self { dir, account };
        folder.hand_over(folder.path()).map_err(StartFailure::io(attempted))?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn account(&self) -> Option<Account> {
        self.account
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
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
        accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next() == Some(name);
            let mut fields = fields.skip(1);
            let user = fields.next()?.parse().ok()?;
            let group = fields.next()?.parse().ok()?;
            found.then_some(Self { user, group })
        })
    }
}
